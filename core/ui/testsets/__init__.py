"""Parts of the page Test sets."""
