"""llama.cpp in this process: vocabulary, sequences of one cache, sampling, the engine that runs several jobs.

`agentbudget.models.llamacpp` is what stands before it. Everything here is driven through llama-cpp-python's C API, call
by call, so that every token is counted, its probability known, and the work can stop between any two of them.
"""
