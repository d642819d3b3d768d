"""GGUF files of llama.cpp: read, dequantise, and build an OpenVINO model."""
