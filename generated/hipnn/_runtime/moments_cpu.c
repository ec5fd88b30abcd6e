/* The moments of the neighbours of each kind in C, and their derivatives.

REAL is float or double, COMPONENTS and FUNCTIONS are the columns of the tensors T and the sensitivities S of a pair;
MOMENTS, MOMENTS_BACKWARD or MOMENTS_DOUBLE_BACKWARD selects a program. Pairs are sorted by their central atom; a pair of
a kind outside 0 to kinds - 1 counts nothing. Every sum is taken by one thread in one order.
*/

#include <stdint.h>
#include <string.h>

typedef REAL real;

#define INLINE static inline __attribute__((always_inline))
#define BLOCK(array, atom) ((array) + (atom) * COMPONENTS * kinds * FUNCTIONS)
#define KNOWN(k) (0 <= (k) && (k) < kinds)

/* Whether rows of the block, of one function, stand side by side: the loops over components are vectors then. */
#define SIDE_BY_SIDE(stride) (FUNCTIONS == 1 && (stride) == 1)

/* block[a,b] += t[a] s[b], rows of the block a stride apart. */
INLINE void add_outer(const real *t, const real *s, real *restrict block, int64_t stride)
{
    if (SIDE_BY_SIDE(stride)) {
#pragma omp simd
        for (int a = 0; a < COMPONENTS; a++)
            block[a] += t[a] * s[0];
        return;
    }
    for (int a = 0; a < COMPONENTS; a++)
#pragma omp simd
        for (int b = 0; b < FUNCTIONS; b++)
            block[a * stride + b] += t[a] * s[b];
}

/* out[a] = sum of block[a,b] s[b] over b. */
INLINE void times_sensitivities(const real *block, const real *s, real *restrict out, int64_t stride)
{
    if (SIDE_BY_SIDE(stride)) {
#pragma omp simd
        for (int a = 0; a < COMPONENTS; a++)
            out[a] = block[a] * s[0];
        return;
    }
    for (int a = 0; a < COMPONENTS; a++) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int b = 0; b < FUNCTIONS; b++)
            sum += block[a * stride + b] * s[b];
        out[a] = sum;
    }
}

/* out[b] = sum of t[a] block[a,b] over a. */
INLINE void times_tensors(const real *block, const real *t, real *restrict out, int64_t stride)
{
    real sums[FUNCTIONS] = {0};
    if (SIDE_BY_SIDE(stride)) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int a = 0; a < COMPONENTS; a++)
            sum += t[a] * block[a];
        out[0] = sum;
        return;
    }
    for (int a = 0; a < COMPONENTS; a++)
#pragma omp simd
        for (int b = 0; b < FUNCTIONS; b++)
            sums[b] += t[a] * block[a * stride + b];
    memcpy(out, sums, sizeof sums);
}

/* Derivatives with respect to the tensors and sensitivities of all pairs: those of the block of their atom and kind. */
INLINE void spread(int64_t targets, int64_t kinds, const real *T, const real *S, const real *G, const int64_t *target,
                   const int64_t *starts, const int64_t *kind, real *grad_T, real *grad_S)
{
#pragma omp for schedule(static) nowait
    for (int64_t p = 0; p < starts[targets]; p++) {
        real *grad_t = grad_T + p * COMPONENTS, *grad_s = grad_S + p * FUNCTIONS;
        if (KNOWN(kind[p])) {
            const real *block = BLOCK(G, target[p]) + kind[p] * FUNCTIONS;
            times_sensitivities(block, S + p * FUNCTIONS, grad_t, kinds * FUNCTIONS);
            times_tensors(block, T + p * COMPONENTS, grad_s, kinds * FUNCTIONS);
        } else {
            memset(grad_t, 0, COMPONENTS * sizeof(real));
            memset(grad_s, 0, FUNCTIONS * sizeof(real));
        }
    }
}

/* D[i,a,k,b] = sum of T[p,a] S[p,b] over the pairs p of i of kind k; with other T and S, the sum of both. */
INLINE void collect(int64_t targets, int64_t kinds, const real *T, const real *S, const real *other_T,
                    const real *other_S, const int64_t *starts, const int64_t *kind, real *D)
{
#pragma omp for schedule(dynamic, 4)
    for (int64_t i = 0; i < targets; i++) {
        memset(BLOCK(D, i), 0, COMPONENTS * kinds * FUNCTIONS * sizeof(real));
        for (int64_t p = starts[i]; p < starts[i + 1]; p++) {
            if (!KNOWN(kind[p]))
                continue;
            real *block = BLOCK(D, i) + kind[p] * FUNCTIONS;
            add_outer(T + p * COMPONENTS, S + p * FUNCTIONS, block, kinds * FUNCTIONS);
            if (other_T)
                add_outer(other_T + p * COMPONENTS, other_S + p * FUNCTIONS, block, kinds * FUNCTIONS);
        }
    }
}

/* What all programs take: sizes, threads, and the pairs. */
#define SIZES int64_t targets, int64_t kinds, int threads
#define PAIRS const int64_t *target, const int64_t *starts, const int64_t *kind

#ifdef MOMENTS
void moments(SIZES, const real *T, const real *S, PAIRS, real *D)
{
    (void)target;
#pragma omp parallel num_threads(threads)
    collect(targets, kinds, T, S, 0, 0, starts, kind, D);
}
#endif

#ifdef MOMENTS_BACKWARD
void moments_backward(SIZES, const real *T, const real *S, const real *G, PAIRS, real *grad_T, real *grad_S)
{
#pragma omp parallel num_threads(threads)
    spread(targets, kinds, T, S, G, target, starts, kind, grad_T, grad_S);
}
#endif

#ifdef MOMENTS_DOUBLE_BACKWARD
/* X and Y are cotangents of the gradients with respect to T and S: directions in which these change. */
void moments_double_backward(SIZES, const real *T, const real *S, const real *G, const real *X, const real *Y, PAIRS,
                             real *grad_T, real *grad_S, real *grad_G)
{
#pragma omp parallel num_threads(threads)
    {
        spread(targets, kinds, X, Y, G, target, starts, kind, grad_T, grad_S);
        collect(targets, kinds, X, S, T, Y, starts, kind, grad_G);
    }
}
#endif
