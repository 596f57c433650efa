#!/bin/sh
# The measurements of `python -m evals.local … --gpu` on a machine with an NVIDIA GPU. Nothing is fetched from anywhere.
#
#   evals/local/gpu.sh SOURCE WEIGHTS [MEASURES…]
#
# SOURCE   llama-cpp-python's source: its .tar.gz (pip download --no-deps --no-binary :all: llama-cpp-python), or that unpacked
# WEIGHTS  a GGUF file; or a .shape file (python -m evals.local.shape), from which one of random weights is made
# MEASURES of turns, parallel, label, bench (all of them, if none is named)
#
# It takes nvcc, cmake, ninja or make, a C++ compiler, and a Python ≥ 3.11 ($PYTHON, else python3) with numpy and jinja2.
# llama-cpp-python's other requirements (diskcache, typing_extensions) may be wheels or folders on PYTHONPATH.
# CORES (such as 0,1) asks for the same measurements once more without the GPU, on these processors alone.
# OPTIONS are more options for cmake, such as -DGGML_CUDA_FA=OFF, which leaves out most of what takes long to compile.
# BUILD is where llama.cpp is compiled (else ./build-gpu) and used again; JOBS is how many compilers run at once.
# It compiles for the GPU that is there: some minutes on 16 processors. The measurements take about two.
set -eu

source=${1:?"usage: gpu.sh SOURCE WEIGHTS [MEASURES…]"}
weights=${2:?"usage: gpu.sh SOURCE WEIGHTS [MEASURES…]"}
shift 2
[ $# -gt 0 ] || set -- turns parallel label bench

root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
jobs=${JOBS:-$(nproc)}
build=${BUILD:-build-gpu}
mkdir -p "$build"
build=$(cd "$build" && pwd)

if [ -f "$source" ]; then
  mkdir -p "$build/source"
  tar -xzf "$source" -C "$build/source" --strip-components 1
  source=$build/source
fi
source=$(cd "$source" && pwd)

# GCC before 12.4 and 13.3 miscompiles llama.cpp's AMX code: the first matrix product would end the process.
plain="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
[ "$(uname -m)" = x86_64 ] || plain=""
cmake -S "$source/vendor/llama.cpp" -B "$build/llama.cpp" $(command -v ninja >/dev/null && echo "-G Ninja") \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${ARCHITECTURES:-native}" \
  -DCMAKE_C_FLAGS="$plain" -DCMAKE_CXX_FLAGS="$plain" -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF ${OPTIONS:-} >"$build/cmake.log" 2>&1 ||
  { tail -n 30 "$build/cmake.log"; exit 1; }
cmake --build "$build/llama.cpp" -j "$jobs" --target llama mtmd >"$build/make.log" 2>&1 ||
  { tail -n 30 "$build/make.log"; exit 1; }
cmake --build "$build/llama.cpp" -j "$jobs" --target llama-bench llama-server >"$build/programs.log" 2>&1 ||
  tail -n 30 "$build/programs.log" # turns and label can be measured without

case $weights in
*.shape)
  made=$build/$(basename "$weights" .shape).gguf
  [ -f "$made" ] || PYTHONPATH="$root" "$python" -m evals.local.shape make "$weights" "$made"
  weights=$made
  ;;
esac

# llama-cpp-python's Python files as they are, and the library that was just compiled.
rm -rf "$build/python"
mkdir -p "$build/python"
cp -R "$source/llama_cpp" "$build/python/"
rm -rf "$build/python/llama_cpp/lib"
ln -s "$build/llama.cpp/bin" "$build/python/llama_cpp/lib"
export LD_LIBRARY_PATH="$build/llama.cpp/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PYTHONPATH="$root:$build/python${PYTHONPATH:+:$PYTHONPATH}"
cd "$root"
common="--bin $build/llama.cpp/bin --rounds ${ROUNDS:-3}"
"$python" -m evals.local "$@" --gpu --model "$weights" $common
[ -z "${CORES:-}" ] || CUDA_VISIBLE_DEVICES="" taskset -c "$CORES" "$python" -m evals.local "$@" --model "$weights" $common
