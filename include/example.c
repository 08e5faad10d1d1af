/* Executes an engine once on zeros and prints the first number of each output.
 *
 *     make runtime
 *     cc include/example.c -Iinclude target/small/librtrt_codegen.a -ldl -lpthread -lm -o example
 *     ./example model.engine */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtrt.h"

static int failed(void) {
    fprintf(stderr, "error: %s\n", rtrt_last_error());
    return 1;
}

/* Zeroed host memory for each input or output of the first profile. */
static void **buffers(const RtrtEngine *engine, int is_output, size_t n) {
    void **all = calloc(n, sizeof *all);
    for (size_t i = 0; all && i < n; i++) {
        RtrtTensor tensor;
        if (rtrt_engine_tensor(engine, 0, is_output, i, &tensor)) return NULL;
        all[i] = calloc(1, tensor.bytes);
    }
    return all;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: example ENGINE\n");
        return 2;
    }
    RtrtEngine *engine = rtrt_engine_load(argv[1], 0);
    if (!engine) return failed();
    size_t n_inputs, n_outputs;
    if (rtrt_engine_counts(engine, NULL, &n_inputs, &n_outputs)) return failed();
    RtrtContext *context = rtrt_context_new(engine);
    if (!context) return failed();
    void **inputs = buffers(engine, 0, n_inputs), **outputs = buffers(engine, 1, n_outputs);
    if (!inputs || !outputs) return failed();
    if (rtrt_context_run(context, 0, (const void *const *)inputs, outputs)) return failed();
    for (size_t i = 0; i < n_outputs; i++) {
        RtrtTensor tensor;
        if (rtrt_engine_tensor(engine, 0, 1, i, &tensor)) return failed();
        if (strcmp(tensor.kind, "f32") == 0) printf("%s[0] = %g\n", tensor.name, *(float *)outputs[i]);
    }
    rtrt_context_free(context);
    rtrt_engine_free(engine);
    return 0;
}
