/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BANYAN_BANYAN_H
#define BANYAN_BANYAN_H
/*
 * Banyan's C API: load a model, tokenize, generate, embed. C99, and C++ (banyan.hpp is nicer
 * there).
 *
 * Errors. A function that can fail returns NULL when it did not, else a banyan_error: one sentence
 * that says what was wrong, where, and what would be right (options have the names that `banyan
 * run` gives them). The caller frees it. What it should have given is NULL or zeros then. No C++
 * exception leaves the library, and none that a callback throws passes through it.
 *
 * Memory. The library frees what it allocated: each pointer's comment names the function for it,
 * and all of them take NULL. What the caller passes in is not kept after the call.
 *
 * Threads. Handles share nothing. Of one handle, any functions may be called from any threads at
 * once, but for banyan_free_model(), which must come last: those that meet the cache or compute
 * (banyan_generate, banyan_explain, banyan_embed) take turns, the others do not wait. A callback
 * may call all but those three.
 *
 * ABI. BANYAN_ABI_VERSION is the number in the library's SONAME. While it stays, functions and
 * numbers keep their meaning, and structs only grow at their ends: struct_size tells a library how
 * much of a struct its caller knows, and a caller how much of one the library filled in. New
 * programs run with an older library unless they use what it does not have; options that it does
 * not know are an error, not passed over.
 */
#include <stddef.h>
#include <stdint.h>

#define BANYAN_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* Of the library that runs: "0.1.0", and the BANYAN_ABI_VERSION that it was built with. */
const char* banyan_version(void);
int32_t banyan_abi_version(void);

/* ---- errors */

enum {
  BANYAN_BAD_INPUT = 1, /* wrong argument, option, file or prompt */
  BANYAN_FAILED = 2,    /* right input, but it could not be done: budget, memory */
  BANYAN_CANCELLED = 3  /* banyan_cancel() came */
};

typedef struct banyan_error banyan_error;

int32_t banyan_error_code(const banyan_error* error);        /* one of the three above */
const char* banyan_error_message(const banyan_error* error); /* a sentence; lives as long as it */
void banyan_free_error(banyan_error* error);

/* ---- models */

enum {
  BANYAN_COMPUTE_AUTO = 0, /* products may round to bf16 or 8 bits where weights are rounded */
  BANYAN_COMPUTE_F32 = 1   /* every product in 32 bits */
};

enum { BANYAN_KV_F16 = 0, BANYAN_KV_F32 = 1, BANYAN_KV_BF16 = 2, BANYAN_KV_Q8_0 = 3 };

typedef struct banyan_model banyan_model;

typedef struct banyan_model_options {
  uint32_t struct_size;
  int32_t n_threads;        /* 0: physical cores */
  int32_t context;          /* most tokens of prompt and answer; 0: as trained */
  int32_t compute;          /* BANYAN_COMPUTE_.. */
  int32_t kv_type;          /* BANYAN_KV_..: what keys and values are stored as */
  int32_t deterministic;    /* not 0: bit-equal answers for any number of threads and any cache */
  uint64_t kv_budget_bytes; /* most memory for keys and values; 0: a quarter of what is free */
} banyan_model_options;

/* Sets the defaults. `struct_size`: sizeof(banyan_model_options), in all programs. */
void banyan_init_model_options(banyan_model_options* options, size_t struct_size);

/* Opens a GGUF file (the first of several) or a Hugging Face folder; weights are mapped, not read.
 * `options` may be NULL: the defaults. */
banyan_error* banyan_load_model(const char* path, const banyan_model_options* options,
                                banyan_model** model);
void banyan_free_model(banyan_model* model);

int32_t banyan_context(const banyan_model* model);         /* in tokens */
int32_t banyan_vocabulary_size(const banyan_model* model); /* tokens are 0 to this - 1 */
int32_t banyan_embedding_size(const banyan_model* model);  /* floats that banyan_embed() gives */

/* ---- text and tokens */

/* Flags, to be added. */
enum {
  BANYAN_ADD_BOS = 1, /* the token that begins a text, if the model's file asks for it */
  BANYAN_ADD_EOS = 2, /* the one that ends it, likewise (some embedding models want it) */
  BANYAN_SPECIAL = 4  /* special tokens written out in the text are such tokens, not plain text */
};

/* Any bytes; what is not UTF-8 is tokenized byte by byte. `*tokens`: banyan_free(). */
banyan_error* banyan_tokenize(const banyan_model* model, const char* text, size_t text_bytes,
                              uint32_t flags, int32_t** tokens, size_t* n_tokens);

/* With BANYAN_SPECIAL special tokens are written out, else left away. `*text` ends with a NUL that
 * `*text_bytes` does not count; it may end inside a character, if the tokens do: banyan_free(). */
banyan_error* banyan_detokenize(const banyan_model* model, const int32_t* tokens, size_t n_tokens,
                                uint32_t flags, char** text, size_t* text_bytes);

typedef struct banyan_message {
  const char* role; /* "system", "user" or "assistant" */
  const char* content;
} banyan_message;

/* A conversation through the model's own template: the prompt for the next answer.
 * BANYAN_BAD_INPUT if the model has no template or it refuses. `*tokens`: banyan_free(). */
banyan_error* banyan_apply_chat_template(const banyan_model* model, const banyan_message* messages,
                                         size_t n_messages, int32_t** tokens, size_t* n_tokens);

void banyan_free(void* tokens_or_text);

/* ---- generating */

/* Called on the generating thread for each token, with the text that became printable with it:
 * whole UTF-8 characters, perhaps none, NUL-terminated; `text_bytes` does not count the NUL. What
 * is held back at the end (it could have been a stop string) comes with the token -1. Not 0 ends
 * the answer, with what there is of it. */
typedef int32_t (*banyan_on_token)(void* user, int32_t token, const char* text, size_t text_bytes);

typedef struct banyan_logit_bias {
  int32_t token;
  float bias; /* added to its logit; -INFINITY forbids it */
} banyan_logit_bias;

typedef struct banyan_generate_options {
  uint32_t struct_size;
  int32_t max_tokens;      /* 128; -1: until the context is full; 0: only read the prompt */
  float temperature;       /* 0.8; 0: always the likeliest token, and no other setting but
                              penalties and biases counts */
  int32_t top_k;           /* 40: the k likeliest; 0: all */
  float top_p;             /* 0.95: the likeliest that make up p; 1: all */
  float min_p;             /* 0.05: those at least p x as likely as the likeliest; 0: all */
  float typical_p;         /* 1: locally typical sampling off */
  float repeat_penalty;    /* 1: off */
  float presence_penalty;  /* 0: off */
  float frequency_penalty; /* 0: off */
  int32_t repeat_last_n;   /* 64: tokens that penalties look at; -1: all */
  int32_t ignore_eos;      /* 0; not 0: tokens that end a text are never chosen */
  uint64_t seed;           /* 0; equal seeds draw equally */
  const char* const* stop; /* n_stop strings; the answer ends in front of the first that comes */
  size_t n_stop;
  const banyan_logit_bias* logit_bias;
  size_t n_logit_bias;
  banyan_on_token on_token; /* may be NULL; not called where several answers are asked for */
  void* user;               /* for on_token */
  int32_t n;                /* 1; answers to give: the likeliest by the mean of their tokens'
                               log-probabilities, each drawn with random numbers of its own */
  int32_t best_of;          /* 0: n; answers to choose them from, at most 128 */
  uint64_t salt;            /* 0; keys and values are reused from calls of the same salt only: a
                               tenant's number, counted up rather than hashed, so that no two have
                               the same */
} banyan_generate_options;

/* Sets the defaults: llama.cpp's, as above. `struct_size`: sizeof(banyan_generate_options). */
void banyan_init_generate_options(banyan_generate_options* options, size_t struct_size);

enum {
  BANYAN_FINISH_STOP = 0,     /* the model ended it, or a stop string came */
  BANYAN_FINISH_LENGTH = 1,   /* max_tokens, the context or the KV budget ended it */
  BANYAN_FINISH_CANCELLED = 2 /* on_token or banyan_cancel() did */
};

/* One of several answers. */
typedef struct banyan_sample {
  uint32_t struct_size; /* of what the library filled in */
  int32_t finish_reason;
  const char* text; /* UTF-8, NUL-terminated */
  size_t text_bytes;
  const int32_t* tokens; /* [n_tokens] */
  const float* logprobs; /* [n_tokens] */
  size_t n_tokens;
  double mean_logprob; /* over the tokens and the one that ended them, if one did; 0 of none */
} banyan_sample;

/* What the cache has of a prompt. */
typedef struct banyan_cache_facts {
  uint32_t struct_size;    /* of what the library filled in */
  int32_t reused_tokens;   /* of the prompt: their keys and values are there */
  int32_t computed_tokens; /* the others; the last one always is */
  int32_t position;        /* where it diverged: the first token that differs */
  const char* why;         /* why no more is reused: "hit" (all is that can be), "empty",
                              "diverged" (what is stored goes on in another way), "evicted" (more
                              was stored, and made room), "other_tenant", "approximate_only" */
  const char* before;      /* where it diverged: the text in front of position, */
  const char* had;         /* what is stored there, */
  const char* got;         /* and what is asked for: some tokens each, which may begin or end inside
                              a character; else "" */
} banyan_cache_facts;

typedef struct banyan_reply {
  uint32_t struct_size; /* of what the library filled in */
  int32_t finish_reason;
  const char* text; /* UTF-8, NUL-terminated */
  size_t text_bytes;
  const int32_t* tokens; /* [n_tokens]; a token that ended the text is not among them */
  const float* logprobs; /* [n_tokens]: the model's own, before sampling settings */
  size_t n_tokens;
  int32_t prompt_tokens;
  int32_t reused_tokens;  /* of the prompt: their keys and values were there from earlier calls */
  double prompt_ms;       /* until the first token was chosen */
  double predicted_ms;    /* after that */
  uint64_t kv_bytes_peak; /* most memory that keys and values of this model have taken so far */
  int32_t compute;        /* BANYAN_COMPUTE_.. */
  int32_t kv_exact;       /* 0: keys or values were rounded to 8 bits */
  const char* note;       /* why it ended early though nobody asked for it; usually "" */
  double queue_ms;        /* before prompt_ms: until it was taken up, once its call had its turn */
  const char* cache_why;  /* cache->why */
  const banyan_sample* const* samples; /* [n_samples]: the answers, best first; what stands above
                                          is the first of them */
  size_t n_samples;
  const banyan_cache_facts* cache;
} banyan_reply;

/* Continues a prompt of at least one token. `options` may be NULL: the defaults. BANYAN_BAD_INPUT
 * for a prompt past the context or the KV budget. Cancelled is no error but a finish_reason.
 * `*reply`: banyan_free_reply(). */
banyan_error* banyan_generate(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                              const banyan_generate_options* options, banyan_reply** reply);
void banyan_free_reply(banyan_reply* reply);

/* What banyan_generate() with the salt 0 would find in the cache now, and if not all, why. Computes
 * nothing. `*facts`: banyan_free_cache_facts(). */
banyan_error* banyan_explain(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                             banyan_cache_facts** facts);
void banyan_free_cache_facts(banyan_cache_facts* facts);

/* Ends the calls of banyan_generate() and banyan_embed() on this model that have begun, running or
 * waiting for their turn; later ones are not touched. A running one ends after the token, or the
 * piece of 512 prompt tokens, that it is at. From any thread, callback or signal handler. */
void banyan_cancel(banyan_model* model);

/* ---- embedding */

enum {
  BANYAN_POOLING_LAST = 0, /* the last token, the only one that has seen all others */
  BANYAN_POOLING_MEAN = 1  /* the mean over all tokens */
};

/* The hidden states after the model's last norm, pooled and scaled to length 1, so that the dot
 * product of two embeddings is their cosine. Models that were trained for it say on their cards
 * which pooling they want, and whether EOS must end a text (BANYAN_ADD_EOS); most that generate
 * want the last token. `n_floats` must be banyan_embedding_size(). Takes nothing from the cache and
 * leaves nothing in it. */
banyan_error* banyan_embed(banyan_model* model, const int32_t* tokens, size_t n_tokens,
                           int32_t pooling, float* embedding, size_t n_floats);

#ifdef __cplusplus
}
#endif

#endif
