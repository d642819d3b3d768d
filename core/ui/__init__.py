"""What the pages are made of; the only part of core that imports Streamlit."""
