//! Every network as a file for other programs, with what the engine answers about three posters: for `.ci/elsewhere`.

use crate::{metadata, save};
use onesheet::data::squaring::{Alpha, Exif, Resize, Squaring};
use onesheet::data::{pixels, synthetic};
use onesheet::device::Placement;
use onesheet::device::cpu::Cpu;
use onesheet::model::Posters;
use onesheet::network::{NETWORKS, Network, shallow, vgg16};
use onesheet::ops::pool::Pooling;
use onesheet::training::checkpoint::Checkpoint;
use onesheet::training::config::{Pixels, RunConfig};
use onesheet::training::export::{self, Input};
use onesheet::training::learner::{Keep, load};
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;
use std::rc::Rc;

const SIZE: usize = 75;
const POSTERS: usize = 3;

/// Needs half a minute and 700 MB of disk; without somebody who reads the files it shows nothing.
#[test]
#[ignore = "for .ci/elsewhere, which has other programs read the files"]
fn every_network_for_other_programs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("elsewhere");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for network in NETWORKS {
        // One with the maximum.
        let pooling = if network == vgg16::NETWORK { Pooling::Max } else { Pooling::Average };
        make(&folder, network.name, RunConfig { pooling, ..config(network) });
    }
    for pixels in [Pixels::Raw, Pixels::Unit, Pixels::Symmetric] {
        make(&folder, pixels.name(), RunConfig { pixels, ..config(shallow::MINIATURE) });
    }
    write_poster(&folder);
}

/// A poster as it is found, and as the squares that are made of it.
fn write_poster(folder: &Path) {
    let path = folder.join("poster.png");
    let (drawn, _) = synthetic::draw(1, 0, 90);
    let drawn = image::RgbImage::from_raw(90, 90, drawn).unwrap();
    image::imageops::crop_imm(&drawn, 10, 0, 61, 90).to_image().save(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let square = |resize| {
        let squaring = Squaring { size: 25, resize, exif: Exif::Apply, alpha: Alpha::Drop };
        pixels::square(&bytes, &squaring).unwrap()
    };
    let (area, nearest) = (square(Resize::Area), square(Resize::Nearest));
    let tensor = |bytes| TensorView::new(Dtype::U8, vec![25, 25, 3], bytes).unwrap();
    let tensors = [("area", tensor(&area)), ("nearest", tensor(&nearest))];
    safetensors::serialize_to_file(tensors, None, &folder.join("squares.safetensors")).unwrap();
}

fn config(network: Network) -> RunConfig {
    RunConfig { network, image_size: SIZE, ..RunConfig::default() }
}

/// The model under this name in each form, and beside it what it answers.
fn make(folder: &Path, name: &str, config: RunConfig) {
    let path = |ending: &str| folder.join(format!("{name}.{ending}"));
    let checkpoint = path("checkpoint");
    let model = save(&checkpoint, &metadata(config), Keep::Weights);
    export::onnx(&model, &path("onnx"), Input::Bytes, false).unwrap();
    export::onnx(&model, &path("numbers.onnx"), Input::Numbers, true).unwrap();
    if model.metadata().config.network.keras.is_some() {
        export::keras(&model, &path("h5")).unwrap();
    }
    write_answers(&path("answers.safetensors"), &model);
    drop(model);
    fs::remove_file(checkpoint).unwrap();
}

/// Three posters and their logits in f32.
fn write_answers(path: &Path, model: &Checkpoint) {
    let device = Rc::new(Cpu::new());
    let (pixels, format) = (crate::pixels(POSTERS, SIZE), model.metadata().config.pixels.format());
    let posters = Posters { pixels: &pixels, placements: &[Placement::default(); POSTERS], format: &format };
    let logits = load(Rc::clone(&device), model).unwrap().logits(posters).unwrap().to_host(&*device).unwrap();
    let genres = logits.len() / POSTERS;
    let logits: Vec<u8> = logits.into_iter().flat_map(f32::to_le_bytes).collect();
    let tensors = [
        ("posters", TensorView::new(Dtype::U8, vec![POSTERS, SIZE, SIZE, 3], &pixels).unwrap()),
        ("logits", TensorView::new(Dtype::F32, vec![POSTERS, genres], &logits).unwrap()),
    ];
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}
