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

/* Elements k of a block are at k * STEP for the first lane, and lanes are ACROSS apart: of channels one behind the
   other, where an atom has several, and else of one atom after the other. */
typedef struct {
    int64_t step, across, lanes;
} layout;

/* The elements of one block, WIDTH lanes of each, zero behind the last; then the constant one. */
static void copy_block(int64_t size, layout at, const real *x, real *block)
{
    if (at.lanes < WIDTH)
        memset(block, 0, size * WIDTH * sizeof(real));
    if (at.across == 1)
        for (int64_t k = 0; k < size; k++)
            memcpy(block + k * WIDTH, x + k * at.step, at.lanes * sizeof(real));
    else
        for (int64_t lane = 0; lane < at.lanes; lane++)
            for (int64_t k = 0; k < size; k++)
                block[k * WIDTH + lane] = x[k * at.step + lane * at.across];
    for (int64_t lane = 0; lane < WIDTH; lane++)
        block[size * WIDTH + lane] = 1;
}

static void store(const vector *total, layout at, real *out)
{
    real lanes[WIDTH];
    memcpy(lanes, total, sizeof lanes);
    for (int64_t lane = 0; lane < at.lanes; lane++)
        out[lane * at.across] = lanes[lane];
}

#define AT(index, v) (*(const unaligned_vector *)(block + (int64_t)(index) * WIDTH + (v) * LANES))

static void sum_block(int64_t outputs, layout at, const int64_t *groups, const int64_t *terms, const int32_t *outer,
                      const int32_t *inner, const real *coefficients, const real *block, real *out)
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
        store(total, at, out + k * at.step);
    }
}

#ifdef TABLE
void table(int64_t atoms, int64_t channels, int64_t size, int64_t outputs, int threads, const real *inputs,
           const int64_t *groups, const int64_t *terms, const int32_t *outer, const int32_t *inner,
           const real *coefficients, real *scratch, real *out)
{
    const int64_t rows = channels == 1 ? atoms : channels, blocks = (rows + WIDTH - 1) / WIDTH;
#pragma omp parallel num_threads(threads)
    {
        real *own = 0;
#pragma omp critical
        {
            own = scratch;
            scratch += (size + 1) * WIDTH;
        }
#pragma omp for schedule(dynamic)
        for (int64_t k = 0; k < (channels == 1 ? 1 : atoms) * blocks; k++) {
            const int64_t atom = k / blocks, row = k % blocks * WIDTH;
            const int64_t lanes = rows - row < WIDTH ? rows - row : WIDTH;
            const layout from = {channels, channels == 1 ? size : 1, lanes};
            const layout to = {channels, channels == 1 ? outputs : 1, lanes};
            copy_block(size, from, inputs + atom * size * channels + row * from.across, own);
            sum_block(outputs, to, groups, terms, outer, inner, coefficients, own,
                      out + atom * outputs * channels + row * to.across);
        }
    }
}
#endif
