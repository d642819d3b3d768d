"""GGUF files, as llama.cpp writes them: reading, dequantising, building an OpenVINO model."""
