"""Who answers: a Hugging Face model, here or in vLLM, or an OpenAI-compatible server."""
