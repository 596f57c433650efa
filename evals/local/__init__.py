"""How fast llama.cpp is in this process, beside llama-cpp-python, llama-server and llama-bench on the same weights."""
