// Instance norm, ReLU and 2x2 average pooling in one pass, forwards and backwards.
//
// These three are bound by memory, not arithmetic. Here an image is read while it is in the cache, nothing
// between the convolution and the pooled output is written, and the backward pass recomputes what it needs.
// Images are channels-last [N, H, W, C]; sums are float32; every image is worked on by one thread, so the
// result does not depend on their number.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bfloat16 {
  uint16_t bits;
};

inline float load(const float* at) { return *at; }

inline float load(const bfloat16* at) {
  const uint32_t bits = uint32_t(at->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline void store(float* at, float value) { *at = value; }

// Rounds to nearest, ties to even; not-a-number stays one.
inline void store(bfloat16* at, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
  at->bits = uint16_t((value != value ? (bits | 0x400000) : rounded) >> 16);
}

// Keeps not-a-number, as torch does: a diverged net must show.
inline float relu(float value) { return value < 0 ? 0 : value; }

template <class T>
void forward(const T* images, const float* weight, const float* bias, T* pooled, float* means,
             float* rstds, long count, long height, long width, long channels, int threads, float epsilon) {
  const long pixels = height * width, rows = height / 2, columns = width / 2;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> space(4 * channels);
    float *sum = space.data(), *square = sum + channels, *scale = square + channels, *shift = scale + channels;
#pragma omp for schedule(static)
    for (long n = 0; n < count; n++) {
      const T* image = images + n * pixels * channels;
      float *mean = means + n * channels, *rstd = rstds + n * channels;
      for (long c = 0; c < channels; c++) sum[c] = square[c] = 0;
      for (long p = 0; p < pixels; p++)
#pragma omp simd
        for (long c = 0; c < channels; c++) sum[c] += load(image + p * channels + c);
      for (long c = 0; c < channels; c++) mean[c] = sum[c] / pixels;
      for (long p = 0; p < pixels; p++)
#pragma omp simd
        for (long c = 0; c < channels; c++) {
          const float off = load(image + p * channels + c) - mean[c];
          square[c] += off * off;
        }
      for (long c = 0; c < channels; c++) {
        rstd[c] = 1 / std::sqrt(square[c] / pixels + epsilon);
        scale[c] = rstd[c] * weight[c];
        shift[c] = bias[c] - mean[c] * scale[c];
      }
      for (long i = 0; i < rows; i++)
        for (long j = 0; j < columns; j++) {
          const T* first = image + (2 * i * width + 2 * j) * channels;
          const T *right = first + channels, *below = first + width * channels, *across = below + channels;
          T* out = pooled + ((n * rows + i) * columns + j) * channels;
#pragma omp simd
          for (long c = 0; c < channels; c++) {
            const float upper = relu(load(first + c) * scale[c] + shift[c]) + relu(load(right + c) * scale[c] + shift[c]);
            const float lower = relu(load(below + c) * scale[c] + shift[c]) + relu(load(across + c) * scale[c] + shift[c]);
            store(out + c, 0.25f * (upper + lower));
          }
        }
    }
  }
}

// With h the normalised pixel and q what the ReLU lets through of the gradient:
//   d pixel = weight * rstd * (q - mean(q) - h * mean(q * h)),  d weight = sum(q * h),  d bias = sum(q).
// A last row or column that pooling leaves out gets no q, but has its part in mean and variance.
template <class T>
void backward(const T* images, const T* gradient, const float* weight, const float* bias, const float* means,
              const float* rstds, T* d_images, float* d_weight, float* d_bias, long count, long height,
              long width, long channels, int threads) {
  const long pixels = height * width, rows = height / 2, columns = width / 2;
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> space(4 * channels);
    float *scale = space.data(), *shift = scale + channels, *slope = shift + channels, *offset = slope + channels;
#pragma omp for schedule(static)
    for (long n = 0; n < count; n++) {
      const T* image = images + n * pixels * channels;
      const T* given = gradient + n * rows * columns * channels;
      T* out = d_images + n * pixels * channels;
      const float *mean = means + n * channels, *rstd = rstds + n * channels;
      float *sum = d_bias + n * channels, *product = d_weight + n * channels;
      for (long c = 0; c < channels; c++) {
        scale[c] = rstd[c] * weight[c];
        shift[c] = bias[c] - mean[c] * scale[c];
        sum[c] = product[c] = 0;
      }
      for (long i = 0; i < 2 * rows; i++)
        for (long j = 0; j < 2 * columns; j++) {
          const T* at = image + (i * width + j) * channels;
          const T* from = given + (i / 2 * columns + j / 2) * channels;
#pragma omp simd
          for (long c = 0; c < channels; c++) {
            const float value = load(at + c);
            const float q = value * scale[c] + shift[c] > 0 ? 0.25f * load(from + c) : 0;
            sum[c] += q;
            product[c] += q * (value - mean[c]);
          }
        }
      for (long c = 0; c < channels; c++) {
        product[c] *= rstd[c];
        slope[c] = -scale[c] * rstd[c] * product[c] / pixels;
        offset[c] = -scale[c] * sum[c] / pixels - slope[c] * mean[c];
      }
      for (long i = 0; i < height; i++)
        for (long j = 0; j < width; j++) {
          const bool pooled = i < 2 * rows && j < 2 * columns;
          const T* at = image + (i * width + j) * channels;
          const T* from = given + (pooled ? i / 2 * columns + j / 2 : 0) * channels;
          const float share = pooled ? 0.25f : 0;
          T* to = out + (i * width + j) * channels;
#pragma omp simd
          for (long c = 0; c < channels; c++) {
            const float value = load(at + c);
            const float q = value * scale[c] + shift[c] > 0 ? share * load(from + c) : 0;
            store(to + c, q * scale[c] + value * slope[c] + offset[c]);
          }
        }
    }
  }
}

}  // namespace

#define FOR_TYPE(name, T)                                                                                       \
  void forward_##name(const T* images, const float* weight, const float* bias, T* pooled, float* means,         \
                      float* rstds, long count, long height, long width, long channels, int threads,                   \
                      float epsilon) {                                                                          \
    forward(images, weight, bias, pooled, means, rstds, count, height, width, channels, threads, epsilon);      \
  }                                                                                                             \
  void backward_##name(const T* images, const T* gradient, const float* weight, const float* bias,              \
                       const float* means, const float* rstds, T* d_images, float* d_weight, float* d_bias,     \
                       long count, long height, long width, long channels, int threads) {                       \
    backward(images, gradient, weight, bias, means, rstds, d_images, d_weight, d_bias, count, height, width,    \
             channels, threads);                                                                                \
  }

extern "C" {
FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bfloat16)
}
