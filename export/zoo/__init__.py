"""The reference zoo: nine small generative models of handwritten digits and of English prose."""
