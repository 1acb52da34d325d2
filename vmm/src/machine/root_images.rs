//! The images that `--root` names: opened by this process, or by the balancer out of its store.

use super::inputs::InputError;
use crate::link::{self, Granted, open_images};
use crate::memory::images::{ImageError, OpenImage, open_path};
use crate::spec::{GuestSpec, ImageName};
use protocol::bytes::BLOCK_BYTES;
use protocol::image::{Backing, IMAGES_MAX};
use protocol::path::ContainerPath;
use protocol::run_dir::RunDir;

/// Word of the kernel's command line for the number of images that make the guest's root, lowest first.
const ROOT_WORD: &str = "ballast.root=";

/// Opens all images, in the order in which they were named.
///
/// # Errors
/// When one is not an image, or is refused.
pub(crate) fn open(
    spec: &GuestSpec,
    container: &ContainerPath,
    run_dir: Option<&RunDir>,
) -> Result<Vec<OpenImage>, InputError> {
    if spec.root.len() > IMAGES_MAX {
        return Err(ImageError::TooMany { found: spec.root.len() }.into());
    }
    let names: Vec<String> = spec.root.iter().filter_map(ImageName::in_store).map(str::to_owned).collect();
    let mut granted = match (names.is_empty(), run_dir) {
        (true, _) => vec![],
        (false, None) => return Err(InputError::NoStore { name: names[0].clone() }),
        (false, Some(run_dir)) => {
            link::ensure_running(run_dir)?;
            match open_images(&run_dir.guest_socket(), container, &names).map_err(InputError::AskImages)? {
                Granted::Images(images) => images,
                Granted::Refused(reason) => return Err(InputError::ImagesRefused(reason)),
            }
        }
    }
    .into_iter();
    let open_one = |name: &ImageName| match name {
        ImageName::Path(path) => Ok(open_path(path)?),
        ImageName::InStore(name) => {
            let (handle, file, mark) = granted.next().expect("as many as were asked for");
            let image = OpenImage::new(name.clone(), Some(handle.digest), file)?;
            let image = if handle.backing == Backing::Managed { image.managed(mark) } else { image };
            if image.bytes != handle.bytes || !handle.bytes.is_multiple_of(BLOCK_BYTES) {
                let (bytes, expected) = (image.bytes, handle.bytes);
                return Err(ImageError::Differs { name: name.clone(), bytes, expected }.into());
            }
            Ok(image)
        }
    };
    spec.root.iter().map(open_one).collect()
}

/// The command line with a word for the number of images, unless the user gave that word.
pub(crate) fn cmdline(text: &str, images: usize) -> String {
    let named = text.split_ascii_whitespace().any(|word| word.starts_with(ROOT_WORD));
    if images == 0 || named { text.to_owned() } else { format!("{text} {ROOT_WORD}{images}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_the_number_of_root_images() {
        assert_eq!(cmdline("quiet", 0), "quiet");
        assert_eq!(cmdline("quiet", 2), "quiet ballast.root=2");
        assert_eq!(cmdline("ballast.root=1 quiet", 2), "ballast.root=1 quiet");
        assert_eq!(cmdline("x.ballast.root=1", 2), "x.ballast.root=1 ballast.root=2");
    }
}
