"""perpo-sample: from questions to preference records."""
