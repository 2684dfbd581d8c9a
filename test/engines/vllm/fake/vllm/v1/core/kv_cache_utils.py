# SPDX-License-Identifier: Apache-2.0
"""A fake; see vllm/__init__.py."""
DEFAULT_NONE_HASH_SEED = "vllm-none-hash"
