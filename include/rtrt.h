/* Executes engines of rtrt-codegen on an NVIDIA GPU. Needs the driver and nothing else.
 *
 * Functions that return int give 0, or 1 with a text in rtrt_last_error(); those that return a
 * pointer give NULL instead. An engine may be used by any thread; a context by one at a time. */
#ifndef RTRT_H
#define RTRT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct RtrtEngine RtrtEngine;
typedef struct RtrtContext RtrtContext;

/* An input or output of one profile. */
typedef struct RtrtTensor {
    const char *name;   /* lives as long as the engine */
    const char *kind;   /* element kind, such as "f32" */
    size_t rank;
    const size_t *dims; /* rank extents; live as long as the engine */
    size_t bytes;
} RtrtTensor;

/* Text of this thread's last error. */
const char *rtrt_last_error(void);

/* Reads an engine file, proves it and puts it on a device. */
RtrtEngine *rtrt_engine_load(const char *path, int device);
/* The same for an engine that must be signed by the owner of the ed25519 public key in the file signer. */
RtrtEngine *rtrt_engine_load_signed(const char *path, const char *signer, int device);
void rtrt_engine_free(RtrtEngine *engine);

/* A profile is one binding of the model's dynamic dims. Any of the pointers may be NULL. */
int rtrt_engine_counts(const RtrtEngine *engine, size_t *n_profiles, size_t *n_inputs, size_t *n_outputs);
int rtrt_engine_tensor(const RtrtEngine *engine, size_t profile, int is_output, size_t position, RtrtTensor *tensor);
/* The number of the profile whose inputs have these dims: dims[i] are those of input i, as many as it has axes in every
 * profile. Engines for ranges have a profile for each shape; this is how to find one without trying all. */
int rtrt_engine_profile_for(const RtrtEngine *engine, const size_t *const *dims, size_t *profile);

/* Everything is allocated here, nothing in rtrt_context_run. What the first execution of a shape of a range needs of the
 * host's memory is taken then. */
RtrtContext *rtrt_context_new(const RtrtEngine *engine);
/* The same, but everything is queued on a stream that stays yours: a CUstream or cudaStream_t of the
 * engine's device, or NULL for the default stream. It must outlive the context. */
RtrtContext *rtrt_context_new_on(const RtrtEngine *engine, void *stream);
void rtrt_context_free(RtrtContext *context);

/* Reads inputs[i] and writes outputs[i], in host memory; returns when the outputs are there. Where data decides
 * an extent of an output, rtrt_engine_tensor() tells the most it can be, which outputs[i] must hold; only the
 * elements that are there are written, without gaps. */
int rtrt_context_run(RtrtContext *context, size_t profile, const void *const *inputs, void *const *outputs);

/* Queues an execution on the context's stream and returns before it is done: reads inputs[i] and writes
 * outputs[i], addresses of device memory. Whatever you queue on that stream afterwards sees the outputs. Where
 * data decides an extent, elements lie as in a tensor of the largest. */
int rtrt_context_enqueue(RtrtContext *context, size_t profile, const void *const *inputs, void *const *outputs);

/* Waits for what is queued, and writes the rank dims of an output of the last execution: those that
 * rtrt_engine_tensor() tells, but for extents that data decides. */
int rtrt_context_output_dims(RtrtContext *context, size_t position, size_t rank, size_t *dims);

#ifdef __cplusplus
}
#endif

#endif
