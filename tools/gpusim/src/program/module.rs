//! A loaded module: its text read, its variables placed, its kernels decoded when first asked for.

use super::{DecodeError, Decoder, Kernel};
use crate::ptx::{self, ParseError, ast};
use std::collections::HashMap;
use std::sync::Arc;

/// A module in memory.
pub struct Module {
    tree: ast::Module,
    globals: HashMap<String, u64>,
    kernels: HashMap<String, Arc<Kernel>>,
}

/// A `.global` or `.const` variable: where and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// Device address.
    pub address: u64,
    /// Bytes.
    pub bytes: usize,
}

impl Module {
    /// Reads PTX.
    ///
    /// # Errors
    /// Text that isn't PTX.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self { tree: ptx::parse(text)?, globals: HashMap::new(), kernels: HashMap::new() })
    }

    /// The number in `.target`: 80 for `sm_80`.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.tree.target.trim_start_matches("sm_").trim_end_matches(['a', 'f']).parse().unwrap_or(0)
    }

    /// The version of PTX, major and minor.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.tree.version
    }

    /// The variables that need device memory.
    pub fn variables(&self) -> impl Iterator<Item = &ast::Variable> {
        self.tree.variables.iter().filter(|v| matches!(v.space, ast::Space::Global | ast::Space::Const))
    }

    /// Says where a variable is.
    pub fn place(&mut self, name: &str, address: u64) {
        self.globals.insert(name.to_owned(), address);
    }

    /// The variable of this name, once placed.
    #[must_use]
    pub fn global(&self, name: &str) -> Option<Global> {
        let variable = self.variables().find(|v| v.name == name)?;
        let address = *self.globals.get(name)?;
        Some(Global { address, bytes: variable.bytes() })
    }

    /// Every variable's bytes, once all are placed: numbers and addresses of other variables, little-endian.
    #[must_use]
    pub fn image(&self, variable: &ast::Variable) -> Vec<u8> {
        let size = variable.ty.size();
        let mut bytes = vec![0; variable.bytes()];
        for (chunk, initial) in bytes.chunks_exact_mut(size).zip(&variable.initial) {
            let bits = match initial {
                ast::Initial::Bits(bits) => *bits,
                ast::Initial::Address(name) => self.globals.get(name).copied().unwrap_or(0),
            };
            chunk.copy_from_slice(&bits.to_le_bytes()[..size]);
        }
        bytes
    }

    /// The names of the kernels.
    pub fn kernel_names(&self) -> impl Iterator<Item = &str> {
        self.tree.functions.iter().filter(|f| f.kernel).map(|f| f.name.as_str())
    }

    /// The kernel of this name, decoded; none if there is none.
    ///
    /// # Errors
    /// An instruction that isn't supported.
    pub fn kernel(&mut self, name: &str) -> Result<Option<Arc<Kernel>>, DecodeError> {
        if let Some(kernel) = self.kernels.get(name) {
            return Ok(Some(kernel.clone()));
        }
        let Some(function) = self.tree.functions.iter().find(|f| f.kernel && f.name == name) else {
            return Ok(None);
        };
        let kernel = Arc::new(Decoder::kernel(&self.tree, function, &self.globals)?);
        self.kernels.insert(name.to_owned(), kernel.clone());
        Ok(Some(kernel))
    }
}
