/* The pair operators in C: sums over neighbours, and their derivatives, without an array of pairs times channels.

REAL is float or double, COMPONENTS and FUNCTIONS are the columns of the tensors T and the sensitivities S of a pair;
ENVIRONMENT, ENVIRONMENT_BACKWARD or ENVIRONMENT_DOUBLE_BACKWARD selects a program. Pairs p are sorted by their central
atom i; by_source lists them sorted by their neighbour j. Every sum is taken by one thread in one order.

All of them are made of two loops, here with a for components, b for functions and c for channels:

    gather  E[i,a,c] = sum of T[p,a] S[p,b] Q[j,b,c] over the pairs of i; with the roles of T and S, of i and j changed,
            the derivative with respect to Q. Channels are the outermost loop: what all atoms hold of one vector of
            channels is copied side by side, the sums of one atom stay in registers.
    dots    per pair, the derivatives with respect to T and S: sums over channels, kept in vectors up to their ends.

The double backward is the same two loops with first-order changes of T, S and Q.

Atoms are taken, and copied, in a sequence in which each is soon followed by its neighbours: what they have in common is
in the cache still, in whatever order atoms are given. No sum depends on it.
*/

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef REAL real;

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
typedef real vector __attribute__((vector_size(VECTOR_BYTES)));
typedef real unaligned_vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* The number of lanes, where the preprocessor can see it. */
#define BYTES_float 4
#define BYTES_double 8
#define BYTES_OF(type) BYTES_OF_(type)
#define BYTES_OF_(type) BYTES_##type
#define LANES (VECTOR_BYTES / BYTES_OF(REAL))

#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#elif LANES == 4
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#else
#define EVEN 0, 2
#define ODD 1, 3
#endif

/* An integer as wide as a lane. */
#if BYTES_OF(REAL) == 4
typedef int32_t integer;
#else
typedef int64_t integer;
#endif
typedef integer lane_numbers __attribute__((vector_size(VECTOR_BYTES)));

/* Lanes of two vectors, side by side, by their numbers. */
#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle(x, y, (lane_numbers){__VA_ARGS__})
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 128")

#define MOST (COMPONENTS > FUNCTIONS ? COMPONENTS : FUNCTIONS)

/* The order in which atoms are taken, and where each of them is in it. */
typedef struct {
    int64_t atoms;
    const int64_t *atom, *place;
} sequence;

/* The pairs of each atom: order[starts[i]] to order[starts[i + 1]], or these numbers themselves. */
typedef struct {
    const int64_t *starts, *order;
} grouping;

static int ascending(const void *first, const void *second)
{
    const int64_t a = *(const int64_t *)first, b = *(const int64_t *)second;
    return (a > b) - (a < b);
}

/* An atom with all of its neighbours that were not there yet, in their order, then the same of a neighbour of these.

Room is for three times as many numbers as there are atoms. */
static sequence nearby(int64_t atoms, const int64_t *starts, const int64_t *neighbours, int64_t *room)
{
    enum { NEW, WAITING, TAKEN };
    int64_t *list = room, *waiting = room + atoms, count = 0, depth = 0;
    char *state = (char *)(room + 2 * atoms);
    memset(state, NEW, atoms);
    for (int64_t first = 0; first < atoms; first++) {
        if (state[first] == NEW)
            waiting[depth++] = first;
        while (depth) {
            const int64_t atom = waiting[--depth], begin = count;
            if (state[atom] == TAKEN)
                continue;
            state[atom] = TAKEN;
            list[count++] = atom;
            for (int64_t k = starts[atom]; k < starts[atom + 1]; k++)
                if (state[neighbours[k]] != TAKEN) {
                    state[neighbours[k]] = TAKEN;
                    list[count++] = neighbours[k];
                }
            qsort(list + begin, count - begin, sizeof(int64_t), ascending);
            for (int64_t taken = count - 1; taken >= begin; taken--)
                for (int64_t k = starts[list[taken]]; k < starts[list[taken] + 1]; k++)
                    if (state[neighbours[k]] == NEW) {
                        state[neighbours[k]] = WAITING;
                        waiting[depth++] = neighbours[k];
                    }
        }
    }
    int64_t *place = waiting; /* nothing waits any more */
    for (int64_t at = 0; at < atoms; at++)
        place[list[at]] = at;
    return (sequence){atoms, list, place};
}

/* The first channels of a vector, the rest zero. */
INLINE vector load(const real *from, int64_t lanes)
{
    if (lanes >= LANES)
        return *(const unaligned_vector *)from;
    vector part = {0};
    memcpy(&part, from, lanes * sizeof(real));
    return part;
}

INLINE void store(real *to, vector value, int64_t lanes)
{
    if (lanes >= LANES)
        *(unaligned_vector *)to = value;
    else
        memcpy(to, &value, lanes * sizeof(real));
}

/* The first lanes of a vector, the rest zero, whatever is there. */
INLINE vector first(vector value, int64_t lanes)
{
    return (vector)((lane_numbers)value & ((lane_numbers){EVEN} < (integer)(2 * lanes)));
}

/* Sum of factors[k] rows[k], the rows a stride of numbers apart; four chains, so that no addition waits for the last. */
INLINE vector combine(const int size, const real *factors, const real *rows, int64_t stride)
{
    vector sums[4] = {{0}, {0}, {0}, {0}};
    UNROLLED
    for (int k = 0; k < size; k++)
        sums[k % 4] += factors[k] * load(rows + k * stride, LANES);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/* The sum over the lanes of each of the vectors, which it uses up. */
INLINE void sum_lanes(const int size, vector *vectors, real *sums)
{
    int count = size;
    UNROLLED
    for (int width = LANES; width > 1; width /= 2) {
        const int half = (count + 1) / 2;
        UNROLLED
        for (int k = 0; k < half; k++) {
            const vector x = vectors[2 * k], y = 2 * k + 1 < count ? vectors[2 * k + 1] : (vector){0};
            vectors[k] = SHUFFLE(x, y, EVEN) + SHUFFLE(x, y, ODD);
        }
        count = half;
    }
    memcpy(sums, vectors, size * sizeof(real));
}

/* One vector of channels of all rows of each atom, side by side and in sequence. Called by all threads of a team. */
INLINE void pack(const int size, sequence all, int64_t channels, int64_t channel, const real *from, real *to)
{
#pragma omp for schedule(static)
    for (int64_t at = 0; at < all.atoms; at++) {
        const real *rows = from + all.atom[at] * size * channels + channel;
        for (int row = 0; row < size; row++)
            *(vector *)(to + (at * size + row) * LANES) = load(rows + row * channels, channels - channel);
    }
}

/* out[i,a,c] = sum of A[p,a] B[p,b] R[other(p),b,c] over b and the pairs p of i, with n_a values of a and n_b of b.

With `change` its first-order change: the sum of A' B R + A (B' R + B R'), where A' is A_change and so on; no R' means
zero. Scratch has room for one vector for each row of R and of R'. Called by all threads of a team. */
INLINE void gather(const int n_a, const int n_b, const int change, sequence all, grouping pairs, const int64_t *other,
                   int64_t channels, const real *A, const real *B, const real *R, const real *A_change,
                   const real *B_change, const real *R_change, real *scratch, real *out)
{
    real *packed = scratch, *packed_change = scratch + all.atoms * n_b * LANES;
    for (int64_t channel = 0; channel < channels; channel += LANES) {
        pack(n_b, all, channels, channel, R, packed);
        if (R_change)
            pack(n_b, all, channels, channel, R_change, packed_change);
#pragma omp for schedule(dynamic, 4)
        for (int64_t at = 0; at < all.atoms; at++) {
            const int64_t i = all.atom[at];
            vector sums[MOST];
            UNROLLED
            for (int a = 0; a < n_a; a++)
                sums[a] = (vector){0};
            for (int64_t k = pairs.starts[i]; k < pairs.starts[i + 1]; k++) {
                const int64_t p = pairs.order ? pairs.order[k] : k, row = all.place[other[p]] * n_b * LANES;
                const vector message = combine(n_b, B + p * n_b, packed + row, LANES);
                if (change) {
                    vector changed = combine(n_b, B_change + p * n_b, packed + row, LANES);
                    if (R_change)
                        changed += combine(n_b, B + p * n_b, packed_change + row, LANES);
                    UNROLLED
                    for (int a = 0; a < n_a; a++)
                        sums[a] += A_change[p * n_a + a] * message + A[p * n_a + a] * changed;
                } else {
                    UNROLLED
                    for (int a = 0; a < n_a; a++)
                        sums[a] += A[p * n_a + a] * message;
                }
            }
            UNROLLED
            for (int a = 0; a < n_a; a++)
                store(out + (i * n_a + a) * channels + channel, sums[a], channels - channel);
        }
    }
}

/* sums[a] += X[a,c] B[b] Y[b,c], of one vector of channels. */
INLINE void dot(const int n_a, const int n_b, vector *sums, const real *X, const real *B, const real *Y,
                int64_t channels)
{
    const vector message = combine(n_b, B, Y, channels);
    UNROLLED
    for (int a = 0; a < n_a; a++)
        sums[a] += message * load(X + a * channels, LANES);
}

/* The same of the last channels, which do not fill a vector. Not unrolled: they are few, and compiling took seconds. */
static __attribute__((noinline)) void dot_rest(int n_a, int n_b, vector *sums, const real *X, const real *B,
                                               const real *Y, int64_t channels, int64_t lanes)
{
    vector message = {0};
    for (int b = 0; b < n_b; b++)
        message += B[b] * load(Y + b * channels, lanes);
    message = first(message, lanes); /* What is beyond the last channel is zero only where all B are finite. */
    for (int a = 0; a < n_a; a++)
        sums[a] += message * load(X + a * channels, lanes);
}

/* out[a] = sum of X[a,c] B[b] Y[b,c] over b and c; with another B and Y, or X, B and Y, the sum of both. */
INLINE void dots(const int n_a, const int n_b, int64_t channels, real *out, const real *X, const real *B, const real *Y,
                 const real *other_X, const real *other_B, const real *other_Y)
{
    vector sums[MOST];
    UNROLLED
    for (int a = 0; a < n_a; a++)
        sums[a] = (vector){0};
    int64_t channel = 0;
    for (; channel + LANES <= channels; channel += LANES) {
        dot(n_a, n_b, sums, X + channel, B, Y + channel, channels);
        if (other_B)
            dot(n_a, n_b, sums, other_X + channel, other_B, other_Y + channel, channels);
    }
    if (channel < channels) {
        dot_rest(n_a, n_b, sums, X + channel, B, Y + channel, channels, channels - channel);
        if (other_B)
            dot_rest(n_a, n_b, sums, other_X + channel, other_B, other_Y + channel, channels, channels - channel);
    }
    sum_lanes(n_a, sums, out);
}

/* What all programs take: sizes, threads, and how the pairs are grouped. */
#define SIZES int64_t atoms, int64_t channels, int threads
#define GROUPS                                                                                                         \
    const int64_t *target, const int64_t *source, const int64_t *target_starts, const int64_t *source_starts,          \
        const int64_t *by_source, int64_t *room
#define ALL nearby(atoms, target_starts, source, room)
#define BY_TARGET ((grouping){target_starts, 0})
#define BY_SOURCE ((grouping){source_starts, by_source})

/* The pairs of each atom, shared among threads. */
#define FOR_PAIRS(p)                                                                                                   \
    _Pragma("omp for schedule(dynamic, 4) nowait") for (int64_t at = 0; at < atoms; at++)                              \
        for (int64_t p = target_starts[all.atom[at]]; p < target_starts[all.atom[at] + 1]; p++)

#ifdef ENVIRONMENT
void environment(SIZES, const real *T, const real *S, const real *Q, GROUPS, real *scratch, real *E)
{
    const sequence all = ALL;
#pragma omp parallel num_threads(threads)
    gather(COMPONENTS, FUNCTIONS, 0, all, BY_TARGET, source, channels, T, S, Q, 0, 0, 0, scratch, E);
}
#endif

#ifdef ENVIRONMENT_BACKWARD
void environment_backward(SIZES, const real *T, const real *S, const real *Q, const real *G, GROUPS, real *scratch,
                          real *grad_T, real *grad_S, real *grad_Q)
{
    const sequence all = ALL;
#pragma omp parallel num_threads(threads)
    {
        FOR_PAIRS(p) {
            const real *t = T + p * COMPONENTS, *s = S + p * FUNCTIONS;
            const real *q = Q + source[p] * FUNCTIONS * channels, *g = G + target[p] * COMPONENTS * channels;
            dots(COMPONENTS, FUNCTIONS, channels, grad_T + p * COMPONENTS, g, s, q, 0, 0, 0);
            dots(FUNCTIONS, COMPONENTS, channels, grad_S + p * FUNCTIONS, q, t, g, 0, 0, 0);
        }
        gather(FUNCTIONS, COMPONENTS, 0, all, BY_SOURCE, target, channels, S, T, G, 0, 0, 0, scratch, grad_Q);
    }
}
#endif

#ifdef ENVIRONMENT_DOUBLE_BACKWARD
/* X, Y and Z are cotangents of the gradients with respect to T, S and Q: directions in which these change. */
void environment_double_backward(SIZES, const real *T, const real *S, const real *Q, const real *G, const real *X,
                                 const real *Y, const real *Z, GROUPS, real *scratch, real *grad_T, real *grad_S,
                                 real *grad_Q, real *grad_G)
{
    const sequence all = ALL;
#pragma omp parallel num_threads(threads)
    {
        FOR_PAIRS(p) {
            const real *t = T + p * COMPONENTS, *s = S + p * FUNCTIONS, *x = X + p * COMPONENTS, *y = Y + p * FUNCTIONS;
            const real *q = Q + source[p] * FUNCTIONS * channels, *z = Z + source[p] * FUNCTIONS * channels;
            const real *g = G + target[p] * COMPONENTS * channels;
            dots(COMPONENTS, FUNCTIONS, channels, grad_T + p * COMPONENTS, g, y, q, g, s, z);
            dots(FUNCTIONS, COMPONENTS, channels, grad_S + p * FUNCTIONS, q, x, g, z, t, g);
        }
        gather(COMPONENTS, FUNCTIONS, 1, all, BY_TARGET, source, channels, T, S, Q, X, Y, Z, scratch, grad_G);
        gather(FUNCTIONS, COMPONENTS, 1, all, BY_SOURCE, target, channels, S, T, G, Y, X, 0, scratch, grad_Q);
    }
}
#endif
