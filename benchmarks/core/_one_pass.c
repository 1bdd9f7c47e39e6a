/* Loss, gradient and Gauss-Newton matrix of a lens over a map, in one pass over its pixels: what a
   compiler makes of the arithmetic when nothing stands in its way. A map is in turns, NaN missing;
   params are xc, yc, S, f in um; sums are loss, 4 of the gradient, 10 of the matrix. */
#include <math.h>

void one_pass(int maps, int n, const float *turns, const float *params, const float *wavelength,
              float *sums) {
  for (int m = 0; m < maps; m++) {
    const float *p = params + 4 * m, *map = turns + (long)m * n * n;
    float xc = p[0], yc = p[1], side = p[2], f = p[3], k = 1 / wavelength[m];
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
    float s8 = 0, s9 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0, s14 = 0;
    for (int i = 0; i < n; i++) {
      float v = (float)(2 * i - n + 1) / (2 * (n - 1)), y = yc + side * v;
      for (int j = 0; j < n; j++) {
        float u = (float)(2 * j - n + 1) / (2 * (n - 1)), x = xc + side * u;
        float r2 = x * x + y * y, root = sqrtf(r2 + f * f), seen = map[i * n + j];
        float path = r2 / (root + f), d = k * path - seen, over = k / root;
        int there = seen == seen;
        d = there ? d - rintf(d) : 0;
        over = there ? over : 0;
        float a = x * over, b = y * over, c = (x * u + y * v) * over, e = -path * over;
        s0 += d * d;
        s1 += d * a, s2 += d * b, s3 += d * c, s4 += d * e;
        s5 += a * a, s6 += a * b, s7 += a * c, s8 += a * e, s9 += b * b;
        s10 += b * c, s11 += b * e, s12 += c * c, s13 += c * e, s14 += e * e;
      }
    }
    float all[15] = {s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14};
    for (int q = 0; q < 15; q++) sums[15 * m + q] = all[q];
  }
}
