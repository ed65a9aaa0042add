//! The default device where there is no NVIDIA GPU: SIMD and threads, in `f32`; or activations and the factors of products in bfloat16.
//!
//! Three things carry the speed. Convolutions are matrix products over *tiles* of pixels small enough for a core's second
//! level cache; what is owed to an operand (a batch norm, a patch's im2col) is paid while the tile is formed, and what
//! follows the product (bias, statistics, masks) is done before the tile cools. The product reads weights packed once a call
//! (`panels`), with its sums in the widest registers there are (`vector`); 3×3 filters of stride 1 multiply less by Winograd's
//! transforms where that pays. Everything else is bound by memory, and is one pass over rows that the compiler vectorises (`simd`).
//!
//! In bfloat16 the products are those of AVX-512 BF16 or of AMX's tile registers (`narrow_panels`). A network that only answers has its
//! batch norms in its filters, which are packed once, and kernels of its own (`conv::folded`).
//!
//! Deterministic: work is cut into pieces by the shapes alone and partial sums are merged in the order of the pieces, so
//! the same input gives the same bits with any number of threads.

mod adam;
mod batch_norm;
mod clock;
mod conv;
mod dense;
mod depthwise;
mod epilogue;
mod factor;
mod image;
mod loss;
mod matmul;
mod memory;
mod narrow_panels;
mod panels;
mod pool;
mod pooled;
mod rates;
mod reduce;
mod rows;
mod scratch;
mod simd;
mod slab;
mod source;
mod vector;
mod view;

pub use memory::{Buffer, Cpu};
pub use view::{View, ViewMut};
