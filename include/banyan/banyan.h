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
 * (banyan_generate, banyan_explain, banyan_explain_with, banyan_embed) take turns, the others do
 * not wait. A callback may call all but those four.
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

/* Where drafts come from: tokens that may be next, which one step verifies together. Answers are
 * the same with and without, bit for bit if deterministic. */
enum {
  BANYAN_SPECULATION_OFF = 0,
  BANYAN_SPECULATION_AUTO = 1,   /* what there is of the two below, for as long as it pays */
  BANYAN_SPECULATION_LOOKUP = 2, /* what followed the same tokens in the prompt or the answer */
  BANYAN_SPECULATION_DRAFT = 3   /* a smaller model: draft_model_path */
};

typedef struct banyan_model banyan_model;

typedef struct banyan_model_options {
  uint32_t struct_size;
  int32_t n_threads;        /* 0: physical cores */
  int32_t context;          /* most tokens of prompt and answer; 0: as trained */
  int32_t compute;          /* BANYAN_COMPUTE_.. */
  int32_t kv_type;          /* BANYAN_KV_..: what keys and values are stored as */
  int32_t deterministic;    /* not 0: bit-equal answers for any number of threads and any cache */
  uint64_t kv_budget_bytes; /* most memory for keys and values; 0: a quarter of what is free */
  int32_t speculation;      /* BANYAN_SPECULATION_..; searches draft nothing */
  int32_t reserved;         /* 0 */
  const char* draft_model_path; /* a model with the same tokens, as banyan_load_model()'s; takes a
                                   part of the budget; NULL: none */
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
  const char* note;    /* why it ended early though nobody asked for it; usually "" */
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
  int32_t drafted_tokens;  /* of all answers together: those that were verified, */
  int32_t accepted_tokens; /* and of them those that were chosen */
  int32_t decode_steps;    /* in which an answer got tokens, those of the prompt left out */
  int32_t reserved;        /* 0 */
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
/* The same with these options, of which the salt decides what is found. `options` may be NULL: the
 * defaults. */
banyan_error* banyan_explain_with(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                                  const banyan_generate_options* options,
                                  banyan_cache_facts** facts);
void banyan_free_cache_facts(banyan_cache_facts* facts);

/* Ends the calls of banyan_generate(), banyan_run_search() and banyan_embed() on this model that
 * have begun, running or waiting for their turn; later ones are not touched. A running one ends
 * after the token, or the piece of 512 prompt tokens, that it is at. From any thread, callback or
 * signal handler. */
void banyan_cancel(banyan_model* model);

/* ---- searching */

/* A tree of texts that grow from one prompt, for generation that branches: what branches have in
 * common is computed and held once, and a step takes all of them through the model together. All of
 * a search is like banyan_generate() as to threads. A search must be freed before its model. */
typedef struct banyan_search banyan_search;

/* A node of a search: a piece of text behind its parent's. Never 0. One that was pruned is
 * BANYAN_BAD_INPUT from then on, as nodes of other searches mostly are. */
typedef uint64_t banyan_node;

/* The root holds the prompt, which is computed with the first step; errors as banyan_generate().
 * `*search`: banyan_free_search(), which leaves what was not pruned in the cache. */
banyan_error* banyan_open_search(banyan_model* model, const int32_t* prompt, size_t n_prompt,
                                 banyan_search** search);
void banyan_free_search(banyan_search* search);

banyan_node banyan_search_root(const banyan_search* search);

/* n new leaves behind a node that has no work left, 1 to 65536: `children` is [n]. Computes and
 * copies nothing. The node stays, but can be extended no longer unless they are pruned. */
banyan_error* banyan_fork(banyan_search* search, banyan_node node, size_t n, banyan_node* children);

/* Gives a leaf that has no work left something to do, in the steps to come: first these tokens, of
 * which there may be none, then options->max_tokens that are sampled. Without `options` none are;
 * n, best_of and on_token must be as the init function leaves them. Leaves whose seeds are equal
 * draw equally. */
banyan_error* banyan_extend(banyan_search* search, banyan_node leaf, const int32_t* tokens,
                            size_t n_tokens, const banyan_generate_options* options);

/* banyan_extend() by the tokens of another branch since the two parted. */
banyan_error* banyan_join(banyan_search* search, banyan_node leaf, banyan_node other);

/* One pass through the model for all leaves that have work; `*more`, which may be NULL: whether any
 * has work left. What goes wrong with one leaf ends its work alone and stands in its
 * banyan_node_facts. */
banyan_error* banyan_step_search(banyan_search* search, int32_t* more);
/* Steps until no work is left. BANYAN_CANCELLED after banyan_cancel(); the rest can be run later.
 */
banyan_error* banyan_run_search(banyan_search* search);

/* The node and all below it go. Not the root. */
banyan_error* banyan_prune(banyan_search* search, banyan_node node);
/* All but the path from the root to the node, and what is below it, goes. */
banyan_error* banyan_commit(banyan_search* search, banyan_node node);

/* The sum of the log-probabilities of the tokens behind the prompt, or the number that
 * banyan_set_score() gave. */
banyan_error* banyan_score(banyan_search* search, banyan_node node, double* score);
banyan_error* banyan_set_score(banyan_search* search, banyan_node node, double score);

/* The likeliest tokens behind a node, best first: `tokens` and `logprobs` are [k], `*n` of them are
 * filled in. BANYAN_BAD_INPUT where the node's end is not computed yet: banyan_extend() it by
 * nothing, and step. */
banyan_error* banyan_next_tokens(banyan_search* search, banyan_node node, size_t k, int32_t* tokens,
                                 float* logprobs, size_t* n);

typedef struct banyan_node_facts {
  uint32_t struct_size; /* of what the library filled in */
  int32_t is_leaf;      /* not 0: nothing was forked from it, or all of that was pruned */
  banyan_node parent;   /* 0: it is the root */
  const char* text;     /* of its own tokens, UTF-8, NUL-terminated */
  size_t text_bytes;
  const int32_t* tokens; /* [n_tokens]: its own; the root's are the prompt */
  size_t n_tokens;
  /* What the last banyan_extend() sampled; the text without a stop string. */
  const char* sampled_text;
  size_t sampled_text_bytes;
  const int32_t* sampled_tokens; /* [n_sampled] */
  size_t n_sampled;
  int32_t finish_reason; /* BANYAN_FINISH_.., once it has no work left */
  int32_t failed;        /* not 0: it could not be done, for which `why` has a sentence */
  const char* why;       /* else "" */
} banyan_node_facts;

/* `*facts`: banyan_free_node_facts(). */
banyan_error* banyan_read_node(banyan_search* search, banyan_node node, banyan_node_facts** facts);
void banyan_free_node_facts(banyan_node_facts* facts);

/* All nodes, depth-first, the root first: `*nodes`: banyan_free(). */
banyan_error* banyan_search_nodes(banyan_search* search, banyan_node** nodes, size_t* n);

/* Tokens whose keys and values are computed. */
typedef struct banyan_search_kv {
  uint32_t struct_size; /* the caller's: of what the library may fill in */
  uint32_t reserved;
  int64_t tokens;      /* each once */
  int64_t path_tokens; /* the leaves' paths added up */
  uint64_t bytes;      /* that they take */
  uint64_t bytes_peak; /* most that keys and values of this model have taken so far */
} banyan_search_kv;
banyan_error* banyan_read_search_kv(banyan_search* search, banyan_search_kv* kv);

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
