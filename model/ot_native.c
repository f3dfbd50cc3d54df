/* The iterations of `model/ot_solver.py` on a CPU, each image by one thread; `model/ot_native.py` compiles this file.

   K is computed once, where the plan will be. An iteration reads it once, in groups of rows that stay in the first
   cache: a row gives its a, and with it at once its share in the sums of the columns.

   Images that this cannot solve keep 0 iterations: those whose K could leave the range of float, NaN among them.

   B images, N regions, C labels. */

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum { MOST_THREADS = 64 };

typedef struct {
    const float *cost, *mu, *nu; /* (B, N, C), (B, N), (B, C) */
    float *plan, *error;         /* (B, N, C), (B,) */
    int64_t *iterations;         /* (B,), zeros at first */
    int64_t images, regions, labels, max_iter;
    float factor;      /* of the cost, in an exponent of 2 */
    float steepest;    /* |cost| above which an image is left out */
    double limit;      /* of the sum over regions of |a - previous a|, below which an image is done */
    atomic_llong next; /* image that no thread has taken */
} Batch;

/* 2^x within two units in the last place, for |x| below 126. */
static inline float power_of_2(float x) {
    const float whole = 12582912.0f; /* 1.5 * 2^23, of which neighbouring floats are 1 apart */
    union { float number; uint32_t bits; } shifted = {x + whole}, power;
    float r = x - (shifted.number - whole); /* in [-1/2, 1/2] */
    power.bits = (shifted.bits + 127) << 23;
    /* Taylor series of exp(r log 2); the next term is below 6e-9. */
    float series = 1.52527338e-5f;
    series = series * r + 1.54035304e-4f;
    series = series * r + 1.33335581e-3f;
    series = series * r + 9.61812911e-3f;
    series = series * r + 5.55041087e-2f;
    series = series * r + 2.40226507e-1f;
    series = series * r + 6.93147181e-1f;
    series = series * r + 1.0f;
    return series * power.number;
}

/* A row of K; gives the bits of the largest |cost|, which are ordered as the numbers are, with NaN above all. */
static uint32_t exponentiate(float *restrict k, const float *restrict cost, float factor, int64_t labels) {
    uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < labels; j++) {
        union { float number; uint32_t bits; } entry = {cost[j]};
        uint32_t size = entry.bits & 0x7fffffffu;
        largest = size > largest ? size : largest;
        k[j] = power_of_2(entry.number * factor);
    }
    return largest;
}

/* New a of up to four rows of K, and their shares in the sums of the columns; gives the sum of |a - previous a|. */
static float scale_rows(const float *k0, int64_t count, int64_t labels, const float *mu, const float *restrict b,
                        float *a, float *restrict sums) {
    /* Rows that are not there: the first one again, with weight 0. */
    const float *k1 = k0 + (count > 1) * labels, *k2 = k0 + 2 * (count > 2) * labels;
    const float *k3 = k0 + 3 * (count > 3) * labels;
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, change = 0, weights[4] = {0};
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t j = 0; j < labels; j++) {
        s0 += k0[j] * b[j];
        s1 += k1[j] * b[j];
        s2 += k2[j] * b[j];
        s3 += k3[j] * b[j];
    }
    const float row_sums[4] = {s0, s1, s2, s3};
    for (int64_t i = 0; i < count; i++) {
        weights[i] = mu[i] / row_sums[i];
        change += fabsf(weights[i] - a[i]);
        a[i] = weights[i];
    }
    const float a0 = weights[0], a1 = weights[1], a2 = weights[2], a3 = weights[3];
#pragma omp simd
    for (int64_t j = 0; j < labels; j++)
        sums[j] += (a0 * k0[j] + a1 * k1[j]) + (a2 * k2[j] + a3 * k3[j]);
    return change;
}

/* T = diag(a) K diag(b) in the place of K; gives the sum over regions of |row sum - mu|. */
static float finish(float *restrict k, int64_t regions, int64_t labels, const float *mu, const float *a,
                    const float *restrict b) {
    float error = 0;
    for (int64_t i = 0; i < regions; i++, k += labels) {
        const float scaling = a[i];
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < labels; j++) {
            k[j] = k[j] * scaling * b[j];
            sum += k[j];
        }
        error += fabsf(sum - mu[i]);
    }
    return error;
}

/* One image, with room for a, b and the sums of the columns. */
static void solve(const Batch *batch, int64_t image, float *a, float *b, float *sums) {
    const int64_t regions = batch->regions, labels = batch->labels;
    const float *cost = batch->cost + image * regions * labels, *mu = batch->mu + image * regions;
    const float *nu = batch->nu + image * labels;
    float *k = batch->plan + image * regions * labels;
    const union { float number; uint32_t bits; } steepest = {batch->steepest};
    float change = INFINITY;
    int64_t taken = 0;
    for (int64_t i = 0; i < regions; i++) a[i] = 1;
    for (int64_t j = 0; j < labels; j++) b[j] = 1;
    while (taken < batch->max_iter && !(change < batch->limit)) { /* NaN is not taken for convergence */
        change = 0;
        for (int64_t j = 0; j < labels; j++) sums[j] = 0;
        for (int64_t first = 0; first < regions; first += 4) {
            int64_t count = regions - first < 4 ? regions - first : 4;
            for (int64_t i = first; taken == 0 && i < first + count; i++)
                if (exponentiate(k + i * labels, cost + i * labels, batch->factor, labels) > steepest.bits) return;
            change += scale_rows(k + first * labels, count, labels, mu + first, b, a + first, sums);
        }
        for (int64_t j = 0; j < labels; j++) b[j] = nu[j] / sums[j];
        taken++;
    }
    batch->error[image] = finish(k, regions, labels, mu, a, b);
    batch->iterations[image] = taken;
}

/* Images, one after the other, as long as there are any. */
static void *work(void *argument) {
    Batch *batch = argument;
    float *room = malloc((batch->regions + 2 * batch->labels) * sizeof(float));
    if (room == NULL) return NULL;
    float *b = room + batch->regions;
    for (int64_t image; (image = atomic_fetch_add(&batch->next, 1)) < batch->images;)
        solve(batch, image, room, b, b + batch->labels);
    free(room);
    return NULL;
}

/* All images, by so many threads. They end with the call: none is there when a process forks. */
void sinkhorn(const float *cost, const float *mu, const float *nu, float *plan, float *error, int64_t *iterations,
              int64_t images, int64_t regions, int64_t labels, int64_t max_iter, float factor, float steepest,
              double limit, int64_t threads) {
    Batch batch = {
        cost, mu, nu, plan, error, iterations, images, regions, labels, max_iter, factor, steepest, limit, 0,
    };
    pthread_t others[MOST_THREADS];
    int started = 0;
    while (started + 1 < threads && started < MOST_THREADS && !pthread_create(&others[started], NULL, work, &batch))
        started++;
    work(&batch);
    while (started > 0) pthread_join(others[--started], NULL);
}
