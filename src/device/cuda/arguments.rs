//! What a kernel is told: one struct, by value. It is declared twice, under one name and with the same fields: in CUDA beside the
//! kernel, and here by [`arguments!`] beside its launch.
//!
//! A launch checks that the sizes agree. The tests below read both declarations, and what the compiler made of the one in CUDA, and
//! compare them field by field.

/// A struct that kernels take, or a part of one.
///
/// # Safety
/// It is laid out as in C, and made of plain numbers and other such structs: field for field what its namesake in CUDA is.
pub(super) unsafe trait Arguments: Copy + std::fmt::Debug {
    /// For the comparison.
    #[cfg(test)]
    const LAYOUT: StructLayout;
}

/// Declares structs of [`Arguments`]. A pointer is a `u64`: an address in device memory.
macro_rules! arguments {
    ($($(#[$attribute:meta])* struct $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$attribute])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub(in crate::device::cuda) struct $name {
            $(pub(in crate::device::cuda) $field: $type,)*
        }

        // SAFETY: laid out as in C; and the tests beside the trait compare it with its namesake.
        unsafe impl $crate::device::cuda::arguments::Arguments for $name {
            #[cfg(test)]
            const LAYOUT: $crate::device::cuda::arguments::StructLayout = $crate::device::cuda::arguments::StructLayout {
                name: stringify!($name),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                fields: &[$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field)),)*],
            };
        }
    )*};
}
pub(super) use arguments;

/// A struct as Rust lays it out.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) struct StructLayout {
    pub(super) name: &'static str,
    pub(super) size: usize,
    pub(super) align: usize,
    /// Name, type and offset of each field.
    pub(super) fields: &'static [(&'static str, &'static str, usize)],
}

#[cfg(test)]
mod tests;
