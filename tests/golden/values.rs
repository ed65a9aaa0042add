//! What the scripts made the weights of, and what they wrote down.

use onesheet::network::{NamedShape, Network};
use safetensors::SafeTensors;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

pub const BATCH: usize = 3;
pub const GENRES: usize = 7;
pub const SAMPLES: usize = 16;
/// Hash streams beyond any tensor's number.
pub const PIXELS: u32 = 1_000_000;
pub const LABELS: u32 = 1_000_001;
pub const POSITIONS: u32 = 2_000_000;

/// MurmurHash3's 32-bit finaliser.
fn fmix32(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// The first `len` hashes of a stream.
pub fn hashes(stream: u32, len: usize) -> impl Iterator<Item = u32> {
    let seed = fmix32(stream);
    (0..len as u32).map(move |i| fmix32(i.wrapping_mul(0x9E37_79B9) ^ seed))
}

/// What the script fills tensor `number` with, step by step in f32.
pub fn initial(number: usize, name: &str, shape: &[usize]) -> Vec<f32> {
    let (layer, kind) = name.split_once('/').expect("a layer and a kind");
    let fan_in: usize = match kind {
        "depthwise_kernel" => shape[0] * shape[1],
        _ => shape[1..].iter().product(),
    };
    // Behind a depthwise convolution there is no ReLU that would halve what arrives.
    let spread = if kind == "pointwise_kernel" { 3.0 } else { 6.0 };
    let limit = (spread / fan_in as f64).sqrt() as f32;
    let uniform = hashes(number as u32, shape.iter().product()).map(|h| (h >> 8) as f32 / 8_388_608.0 - 1.0);
    uniform
        .map(|u| match kind {
            "kernel" if layer == "genres" => 0.25 * (limit * u),
            "kernel" if layer == "block1_conv1" => limit * u / 256.0,
            "kernel" | "depthwise_kernel" | "pointwise_kernel" => limit * u,
            "gamma" if layer.ends_with("_3_bn") || layer.ends_with("_sepconv3_bn") => 0.25 * (1.0 + 0.25 * u),
            "gamma" => 1.0 + 0.25 * u,
            "moving_variance" if layer == "conv1_bn" => 8192.0 * (1.0 + 0.5 * u),
            "moving_variance" => 1.0 + 0.5 * u,
            _ => 0.1 * u,
        })
        .collect()
}

/// `resnet50_layers.json` and its like.
#[derive(Deserialize)]
pub struct LayerTable {
    pub base_layers: usize,
    pub parameters: ParameterCounts,
    pub layers: Vec<LayerRow>,
}

#[derive(Deserialize)]
pub struct ParameterCounts {
    pub total: usize,
    pub trainable: usize,
    pub trainable_in_transfer: usize,
}

#[derive(Deserialize)]
pub struct LayerRow {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub output: Vec<usize>,
    pub parameters: usize,
    pub tensors: Vec<(String, Vec<usize>)>,
}

fn golden_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

impl LayerTable {
    pub fn read(network: Network) -> LayerTable {
        let file = golden_file(&format!("{}_layers.json", network.name));
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    }
}

/// The file of one network.
pub struct Golden {
    pub values: HashMap<String, Vec<f64>>,
    pub facts: Facts,
}

/// What the file says about itself; the lists name the rows of the tensors that have a row a tensor.
#[derive(Deserialize)]
pub struct Facts {
    pub class_weights: Vec<f32>,
    pub learning_rate: f64,
    pub trained: Vec<String>,
    pub moving: Vec<String>,
    /// How many of the base's last layers are trained in transfer learning.
    pub transfer_layers: usize,
    pub transfer: Vec<String>,
    /// Height and width of the images.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Every tensor, where no table of layers says it.
    #[serde(default)]
    pub tensors: Vec<NamedShape>,
}

fn default_size() -> usize {
    150
}

impl Golden {
    pub fn read(network: Network) -> Golden {
        let file = format!("{}.safetensors", network.name.replace(['-', '.'], "_"));
        let bytes = fs::read(golden_file(&file)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let facts = serde_json::from_str(&header.metadata().as_ref().unwrap()["golden"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Golden { values: file.iter().map(|(name, view)| (name.to_owned(), doubles(view.data()))).collect(), facts }
    }
}

fn doubles(data: &[u8]) -> Vec<f64> {
    data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
}

/// Heat maps of ResNet-50 v1.5 behind a pooling, `avg` or `max`: `[genres, posters, height, width]`.
pub fn explanations(pooling: &str) -> Vec<f64> {
    let bytes = fs::read(golden_file("explanations.safetensors")).unwrap();
    doubles(SafeTensors::deserialize(&bytes).unwrap().tensor(pooling).unwrap().data())
}
