//! ImageNet weights for a network, found in a folder by the name of their file.

use onesheet::network::Network;
use onesheet::training::config::RunConfig;
use onesheet::training::start;
use std::fs;
use std::path::{Path, PathBuf};

/// The file in `folder` with ImageNet weights for the network of `config`.
///
/// # Errors
/// Why there is none, and what to do about it.
pub fn find(folder: Option<&Path>, config: &RunConfig, genres: &[String]) -> Result<PathBuf, String> {
    let network = config.network;
    let Some(published) = network.published_weights else {
        return Err(format!(
            "nobody has published ImageNet weights of {}; in a list of your own, `weights` names a checkpoint to start from",
            network.title
        ));
    };
    let Some(folder) = folder else {
        return Err(format!("it starts from ImageNet weights: add --weights-dir with a folder that holds {published}"));
    };
    let place = folder.display();
    let listed = fs::read_dir(folder).map_err(|error| format!("cannot read --weights-dir {place}: {error}"))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|file| Some(file.ok()?.path())).collect();
    files.retain(|file| is_named_after(file, network));
    // Keras's first, which fit exactly; torchvision's and timm's may be no more than a start.
    files.sort_by_key(|file| (file.extension().is_none_or(|kind| kind != "h5"), file.clone()));
    let mut refused = None;
    for file in files {
        match start::read(&file, config, genres) {
            Ok(_) => return Ok(file),
            Err(error) => refused = refused.or(Some(error.to_string())),
        }
    }
    Err(refused
        .unwrap_or_else(|| format!("{place} has no ImageNet weights of {}: put {published} there", network.title)))
}

/// Whether the name of `file` begins as files of the network's weights do: `resnet50-v1.5` has PyTorch's `resnet50`.
fn is_named_after(file: &Path, network: Network) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = network.name.split('-').next().unwrap_or_default();
    let is_weights = name.ends_with(".h5") || name.ends_with(".safetensors");
    is_weights && name.strip_prefix(stem).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onesheet::network::{mobilenet, resnet50, resnet50_v1_5, shallow, vgg16};
    use tempfile::TempDir;

    #[test]
    fn files_are_known_by_their_names() {
        for (file, network, fits) in [
            ("resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", resnet50::NETWORK, true),
            ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", resnet50::NETWORK, false),
            ("resnet50-11ad3fa6.safetensors", resnet50_v1_5::NETWORK, true),
            ("resnet50.safetensors", resnet50_v1_5::NETWORK, true),
            ("MobileNet_1_0_224_tf_no_top.h5", mobilenet::NETWORK, true),
            ("mobilenet.txt", mobilenet::NETWORK, false),
            ("vgg19_weights.h5", vgg16::NETWORK, false),
        ] {
            assert_eq!(is_named_after(&Path::new("some").join(file), network), fits, "{file}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let folder = TempDir::new().unwrap();
        let why = |folder: Option<&Path>, network| {
            let config = RunConfig { network, ..RunConfig::default() };
            find(folder, &config, &["War".into()]).unwrap_err()
        };
        let none = why(None, vgg16::NETWORK);
        assert!(none.contains("add --weights-dir with a folder that holds Keras's vgg16_weights"), "{none}");
        let empty = why(Some(folder.path()), vgg16::NETWORK);
        assert!(empty.contains("has no ImageNet weights of VGG-16: put Keras's vgg16_weights"), "{empty}");
        fs::write(folder.path().join("vgg16_weights.h5"), "nothing").unwrap();
        let bad = why(Some(folder.path()), vgg16::NETWORK);
        assert!(bad.contains("vgg16_weights.h5"), "{bad}");
        let absent = why(Some(&folder.path().join("absent")), vgg16::NETWORK);
        assert!(absent.contains("cannot read --weights-dir"), "{absent}");
        let unpublished = why(None, shallow::NETWORK);
        assert!(unpublished.contains("nobody has published"), "{unpublished}");
    }
}
