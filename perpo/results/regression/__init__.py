"""The regression report: verdicts, samples that lost, as text, HTML and JUnit XML."""
