"""The key, from the environment and from nowhere else."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from stilla.errors import RecipeError
from stilla.recipe.api import Api
from stilla.secrets import SHORTEST

LOCAL = ("localhost", "127.0.0.1", "::1")


def is_local(url: str) -> bool:
    """Whether it is of this machine."""
    return urlsplit(url).hostname in LOCAL


def key_of(api: Api) -> str:
    """The key, from the environment; empty where none is sent.

    Raises:
        RecipeError: there is none, it cannot be kept out of what is written, or it would go over the net unencrypted.
    """
    if api.key_env is None:
        return ""
    key = os.environ.get(api.key_env, "").strip()
    if not key:
        raise RecipeError(f"teacher.api.key_env: the environment variable {api.key_env} is not set; `export {api.key_env}=..."
                          "` in the shell that starts the run. Keys do not belong into recipes")
    if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or os.path.exists(key):
        raise RecipeError(f"teacher.api.key_env: what {api.key_env} holds is no key: expected at least {SHORTEST} characters "
                          "of ASCII that are no file's name")
    if urlsplit(api.url).scheme == "http" and not is_local(api.url):
        raise RecipeError(f"teacher.api.url: got {api.url}; over http everybody on the way reads the key. Expected https, or "
                          "a server on this machine, or no key_env")
    return key
