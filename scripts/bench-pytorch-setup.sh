#!/usr/bin/env bash
# Gives `npm run bench` its PyTorch peers: a virtual environment with the current PyTorch (its package for Linux brings
# CUDA libraries along, which the CPU measurement does not use but `import torch` demands: about 6 GB), and on Debian
# the distribution's own PyTorch. Prints the arguments for the bench.
#
#   bash scripts/bench-pytorch-setup.sh [DIR]        default DIR: ~/.cache/weft-bench
set -euo pipefail
dir=${1:-$HOME/.cache/weft-bench}
mkdir -p "$dir"
[ -x "$dir/torch/bin/python" ] || python3 -m venv "$dir/torch"
"$dir/torch/bin/pip" install --quiet torch numpy
pythons=("$dir/torch/bin/python")
# Without OpenBLAS Debian's PyTorch multiplies float32 matrices with the reference BLAS, thirty times slower: no peer.
if ! /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  echo "for Debian's PyTorch as well: apt-get install python3-torch libopenblas0-pthread" >&2
elif ! ldconfig -p | grep -q libopenblas; then
  echo "Debian's PyTorch is left out until it has a fast BLAS: apt-get install libopenblas0-pthread" >&2
else
  pythons+=(/usr/bin/python3)
fi
for python in "${pythons[@]}"; do
  "$python" -c 'import torch; print("PyTorch", torch.__version__)' >&2
  printf -- '--python %s ' "$python"
done
echo
