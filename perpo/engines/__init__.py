"""Who answers: a Hugging Face model, or an OpenAI-compatible server."""
