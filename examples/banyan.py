# SPDX-License-Identifier: Apache-2.0
"""Banyan from Python: a small binding of its C API with ctypes, to be copied and extended.

The library is the system's libbanyan.so.1, or the one at BANYAN_LIBRARY.
"""

import ctypes
import os
from ctypes import (POINTER, byref, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint32,
                    c_uint64, c_void_p)

ON_TOKEN = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int32, POINTER(ctypes.c_char), c_size_t)
ADD_BOS, ADD_EOS, SPECIAL = 1, 2, 4
POOLING_LAST, POOLING_MEAN = 0, 1
SPECULATION_OFF, SPECULATION_AUTO, SPECULATION_LOOKUP, SPECULATION_DRAFT = 0, 1, 2, 3
FINISH_REASONS = ("stop", "length", "cancelled")


class ModelOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("n_threads", c_int32), ("context", c_int32),
                ("compute", c_int32), ("kv_type", c_int32), ("deterministic", c_int32),
                ("kv_budget_bytes", c_uint64), ("speculation", c_int32), ("reserved", c_int32),
                ("draft_model_path", c_char_p)]


class GenerateOptions(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("max_tokens", c_int32), ("temperature", c_float),
                ("top_k", c_int32), ("top_p", c_float), ("min_p", c_float),
                ("typical_p", c_float), ("repeat_penalty", c_float),
                ("presence_penalty", c_float), ("frequency_penalty", c_float),
                ("repeat_last_n", c_int32), ("ignore_eos", c_int32), ("seed", c_uint64),
                ("stop", POINTER(c_char_p)), ("n_stop", c_size_t),
                ("logit_bias", c_void_p), ("n_logit_bias", c_size_t),
                ("on_token", ON_TOKEN), ("user", c_void_p),
                ("n", c_int32), ("best_of", c_int32), ("salt", c_uint64)]


class _Message(ctypes.Structure):
    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class _Sample(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("finish_reason", c_int32),
                ("text", c_void_p), ("text_bytes", c_size_t),
                ("tokens", POINTER(c_int32)), ("logprobs", POINTER(c_float)),
                ("n_tokens", c_size_t), ("mean_logprob", c_double), ("note", c_char_p)]


class _Reply(ctypes.Structure):
    _fields_ = [("struct_size", c_uint32), ("finish_reason", c_int32),
                ("text", c_void_p), ("text_bytes", c_size_t),
                ("tokens", POINTER(c_int32)), ("logprobs", POINTER(c_float)),
                ("n_tokens", c_size_t), ("prompt_tokens", c_int32), ("reused_tokens", c_int32),
                ("prompt_ms", c_double), ("predicted_ms", c_double), ("kv_bytes_peak", c_uint64),
                ("compute", c_int32), ("kv_exact", c_int32), ("note", c_char_p),
                ("queue_ms", c_double), ("cache_why", c_char_p),
                ("samples", POINTER(POINTER(_Sample))), ("n_samples", c_size_t),
                ("cache", c_void_p), ("drafted_tokens", c_int32), ("accepted_tokens", c_int32),
                ("decode_steps", c_int32), ("reserved", c_int32)]


class Error(Exception):
    """One sentence of the library; `code` is 1 for bad input, 2 for a failure, 3 if cancelled."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def _open_library():
    library = ctypes.CDLL(os.environ.get("BANYAN_LIBRARY", "libbanyan.so.1"))
    library.banyan_version.restype = c_char_p
    library.banyan_error_message.restype = c_char_p
    takes = {
        "error_code": [c_void_p], "error_message": [c_void_p], "free_error": [c_void_p],
        "init_model_options": [c_void_p, c_size_t], "init_generate_options": [c_void_p, c_size_t],
        "load_model": [c_char_p, c_void_p, c_void_p], "free_model": [c_void_p],
        "context": [c_void_p], "vocabulary_size": [c_void_p], "embedding_size": [c_void_p],
        "tokenize": [c_void_p, c_char_p, c_size_t, c_uint32, c_void_p, c_void_p],
        "detokenize": [c_void_p, c_void_p, c_size_t, c_uint32, c_void_p, c_void_p],
        "apply_chat_template": [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p],
        "free": [c_void_p],
        "generate": [c_void_p, c_void_p, c_size_t, c_void_p, c_void_p], "free_reply": [c_void_p],
        "cancel": [c_void_p],
        "embed": [c_void_p, c_void_p, c_size_t, c_int32, c_void_p, c_size_t],
    }
    for name, types in takes.items():
        getattr(library, "banyan_" + name).argtypes = types
    for name in ("load_model", "tokenize", "detokenize", "apply_chat_template", "generate",
                 "embed"):
        getattr(library, "banyan_" + name).restype = c_void_p
        getattr(library, "banyan_" + name).errcheck = _raise_error
    return library


def _raise_error(error, function, arguments):
    if error:
        code, message = _library.banyan_error_code(error), _library.banyan_error_message(error)
        _library.banyan_free_error(error)
        raise Error(code, message.decode())


_library = _open_library()


def version():
    return _library.banyan_version().decode()


def _options(kind, init, settings):
    options = kind()
    init(byref(options), ctypes.sizeof(options))
    for name, value in settings.items():
        if name not in (field for field, _ in kind._fields_):
            raise TypeError(f"there is no option {name!r}")
        setattr(options, name, os.fsencode(value) if name == "draft_model_path" else value)
    return options


def _ids(tokens):
    return (c_int32 * len(tokens))(*tokens)


class Sample:
    """text, tokens, logprobs, finish_reason and note of one answer; of several mean_logprob too."""

    def __init__(self, sample):
        self.text = ctypes.string_at(sample.text, sample.text_bytes).decode()
        self.tokens = sample.tokens[:sample.n_tokens]
        self.logprobs = sample.logprobs[:sample.n_tokens]
        self.finish_reason = FINISH_REASONS[sample.finish_reason]
        self.note = sample.note.decode()
        self.mean_logprob = getattr(sample, "mean_logprob", None)


class Reply(Sample):
    """The best answer, the figures of a banyan_reply, and all answers as `samples`, best first."""

    def __init__(self, reply):
        super().__init__(reply)
        for name in ("prompt_tokens", "reused_tokens", "prompt_ms", "predicted_ms",
                     "drafted_tokens", "accepted_tokens", "decode_steps"):
            setattr(self, name, getattr(reply, name))
        self.cache_why = reply.cache_why.decode()
        self.samples = [Sample(sample.contents) for sample in reply.samples[:reply.n_samples]]


class Model:
    def __init__(self, path, **options):
        """`options`: fields of banyan_model_options, such as speculation=SPECULATION_LOOKUP."""
        self._model = c_void_p()
        options = _options(ModelOptions, _library.banyan_init_model_options, options)
        _library.banyan_load_model(os.fsencode(path), byref(options), byref(self._model))

    def __del__(self):
        if getattr(self, "_model", None):
            _library.banyan_free_model(self._model)

    def _take_ids(self, function, *arguments):
        tokens, n = POINTER(c_int32)(), c_size_t()
        function(self._model, *arguments, byref(tokens), byref(n))
        ids = tokens[:n.value]
        _library.banyan_free(tokens)
        return ids

    def tokenize(self, text, flags=0):
        text = text.encode()
        return self._take_ids(_library.banyan_tokenize, text, len(text), flags)

    def apply_chat_template(self, messages):
        """`messages`: pairs of role and content."""
        array = (_Message * len(messages))(*((r.encode(), c.encode()) for r, c in messages))
        return self._take_ids(_library.banyan_apply_chat_template, array, len(messages))

    def detokenize(self, tokens, flags=0):
        text, n = c_void_p(), c_size_t()
        _library.banyan_detokenize(self._model, _ids(tokens), len(tokens), flags, byref(text),
                                   byref(n))
        decoded = ctypes.string_at(text, n.value).decode(errors="replace")
        _library.banyan_free(text)
        return decoded

    def generate(self, prompt, on_token=None, stop=(), **options):
        """`on_token`: called with a token and its text; the answer ends when it returns False.

        `options`: fields of banyan_generate_options, such as n and best_of for several answers, or
        salt for a tenant of its own. An exception of on_token ends the answer too
        and is raised here.
        """
        raised = []

        def call(_, token, text, text_bytes):
            try:
                return on_token(token, ctypes.string_at(text, text_bytes).decode()) is False
            except BaseException as exception:
                raised.append(exception)
                return True

        options = _options(GenerateOptions, _library.banyan_init_generate_options, options)
        options.stop = (c_char_p * len(stop))(*(text.encode() for text in stop))
        options.n_stop = len(stop)
        if on_token:
            options.on_token = ON_TOKEN(call)
        reply = POINTER(_Reply)()
        _library.banyan_generate(self._model, _ids(prompt), len(prompt), byref(options),
                                 byref(reply))
        try:
            if raised:
                raise raised[0]
            return Reply(reply.contents)
        finally:
            _library.banyan_free_reply(reply)

    def embed(self, tokens, pooling=POOLING_LAST):
        embedding = (c_float * _library.banyan_embedding_size(self._model))()
        _library.banyan_embed(self._model, _ids(tokens), len(tokens), pooling, embedding,
                              len(embedding))
        return list(embedding)

    def cancel(self):
        """Ends what other threads generate and embed with this model."""
        _library.banyan_cancel(self._model)

    @property
    def context(self):
        return _library.banyan_context(self._model)
