/* Sums of products by a table in C: out[k] = sum over the groups of k of x[outer] sum of c x[inner] ... x[inner].

REAL is float or double, DEGREE the number of factors of a product, of which one is shared by a group; TABLE selects the
program. Behind the elements of the inputs stands the constant one. A block of channels of one atom is copied to the
scratch of a thread; every sum is taken by one thread in the order of the table.
*/

#include <stdint.h>
#include <string.h>

typedef REAL real;
typedef REAL vector __attribute__((vector_size(64)));
typedef REAL unaligned_vector __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));

#define LANES ((int64_t)(sizeof(vector) / sizeof(real)))
#define VECTORS 2
#define WIDTH (VECTORS * LANES)
#define INNER (DEGREE - 1)

/* The elements of one block of channels, WIDTH of each, zero behind the last; then the constant one. */
static void copy_block(int64_t size, int64_t channels, int64_t lanes, const real *x, real *block)
{
    for (int64_t k = 0; k < size; k++) {
        if (lanes < WIDTH)
            memset(block + k * WIDTH, 0, WIDTH * sizeof(real));
        memcpy(block + k * WIDTH, x + k * channels, (lanes < WIDTH ? lanes : WIDTH) * sizeof(real));
    }
    for (int64_t lane = 0; lane < WIDTH; lane++)
        block[size * WIDTH + lane] = 1;
}

#define AT(index, v) (*(const unaligned_vector *)(block + (int64_t)(index) * WIDTH + (v) * LANES))

static void sum_block(int64_t outputs, int64_t channels, int64_t lanes, const int64_t *groups, const int64_t *terms,
                      const int32_t *outer, const int32_t *inner, const real *coefficients, const real *block,
                      real *out)
{
    for (int64_t k = 0; k < outputs; k++) {
        vector total[VECTORS] = {{0}};
        for (int64_t group = groups[k]; group < groups[k + 1]; group++) {
            vector sum[VECTORS] = {{0}};
            for (int64_t term = terms[group]; term < terms[group + 1]; term++) {
                const int32_t *factors = inner + term * INNER;
                for (int v = 0; v < VECTORS; v++) {
                    vector product = (vector){0} + coefficients[term];
                    for (int f = 0; f < INNER; f++)
                        product *= AT(factors[f], v);
                    sum[v] += product;
                }
            }
            for (int v = 0; v < VECTORS; v++)
                total[v] += sum[v] * AT(outer[group], v);
        }
        memcpy(out + k * channels, total, (lanes < WIDTH ? lanes : WIDTH) * sizeof(real));
    }
}

#ifdef TABLE
void table(int64_t atoms, int64_t channels, int64_t size, int64_t outputs, int threads, const real *inputs,
           const int64_t *groups, const int64_t *terms, const int32_t *outer, const int32_t *inner,
           const real *coefficients, real *scratch, real *out)
{
    const int64_t blocks = (channels + WIDTH - 1) / WIDTH;
#pragma omp parallel num_threads(threads)
    {
        real *own = 0;
#pragma omp critical
        {
            own = scratch;
            scratch += (size + 1) * WIDTH;
        }
#pragma omp for schedule(dynamic)
        for (int64_t k = 0; k < atoms * blocks; k++) {
            const int64_t atom = k / blocks, channel = k % blocks * WIDTH, lanes = channels - channel;
            copy_block(size, channels, lanes, inputs + atom * size * channels + channel, own);
            sum_block(outputs, channels, lanes, groups, terms, outer, inner, coefficients, own,
                      out + atom * outputs * channels + channel);
        }
    }
}
#endif
