//! Rung 1 of the ladder of proof: every backward kernel against central finite differences of its forward kernel, in `f64`
//! on the reference device, through the public traits; then the tape, over a whole small ResNet. A file a layer family;
//! `planted` makes sure that the check is worth something.

#[path = "../support/networks.rs"]
mod networks;
#[path = "../support/mod.rs"]
mod support;

mod batch_norm;
mod case;
mod conv;
mod dense;
mod depthwise;
mod junction;
mod loss;
mod network;
mod planted;
mod pool;
