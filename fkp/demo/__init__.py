"""The Gradio page: what it shows, what visitors' pictures go through, and what is kept of them."""
