// SPDX-License-Identifier: Apache-2.0
// ggml.c holds the table of tensor types and also the graph builder, which calls these three. No
// graph is ever built here, so that the rest of ggml need not be linked.

#include <stdlib.h>

#include "ggml-backend.h"

enum ggml_backend_buffer_usage ggml_backend_buffer_get_usage(ggml_backend_buffer_t buffer) {
  (void)buffer;
  abort();
}

void ggml_backend_tensor_set(struct ggml_tensor* tensor, const void* data, size_t offset,
                             size_t size) {
  (void)tensor, (void)data, (void)offset, (void)size;
  abort();
}

void ggml_backend_tensor_memset(struct ggml_tensor* tensor, uint8_t value, size_t offset,
                                size_t size) {
  (void)tensor, (void)value, (void)offset, (void)size;
  abort();
}
