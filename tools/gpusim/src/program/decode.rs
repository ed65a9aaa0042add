//! The decoder: what the instruction families ask for rows, addresses and predicates.

use super::calls::Decoded;
use super::flow::{self, Next};
use super::names::{Meaning, Rows, Scopes};
use super::{Act, CallSite, Class, Inst, Kernel, NEVER, Parameter};
use crate::exec;
use crate::ptx::ast::{self, Function, Instruction, Operand, Space, Statement, Type, Variable};
use std::collections::HashMap;
use std::num::NonZero;

/// A kernel that can't be made ready.
#[derive(Clone, Debug, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct DecodeError {
    /// The line.
    pub line: u32,
    /// Why.
    pub what: String,
}

impl DecodeError {
    /// An error at `line`.
    pub fn new(line: u32, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}

pub(super) type Result<T> = std::result::Result<T, DecodeError>;

/// Something left to fill in when all labels are known.
enum Patch {
    Branch(String),
    Switch(u32, Vec<String>),
}

/// Turns one kernel, and the functions it calls, into a [`Kernel`].
pub struct Decoder<'m> {
    pub(super) module: &'m ast::Module,
    pub(super) scopes: Scopes,
    pub(super) rows: Rows,
    pub(super) code: Vec<Inst>,
    tables: Vec<Vec<u32>>,
    pub(super) calls: Vec<CallSite>,
    pub(super) functions: HashMap<String, Decoded>,
    pub(super) open: Vec<String>,
    pub(super) pending: Vec<(u32, String)>,
    pub(super) local: usize,
    pub(super) shared: usize,
    /// The strictest alignment of a dynamic shared variable.
    dynamic_align: usize,
    pub(super) line: u32,
    // Of the function at hand:
    labels: HashMap<String, usize>,
    /// The labels of the blocks in braces around this place: a number and their names.
    label_scopes: Vec<(usize, Vec<String>)>,
    label_blocks: usize,
    branch_tables: HashMap<String, Vec<String>>,
    patches: Vec<(usize, Patch)>,
    pub(super) kernel: bool,
}

impl<'m> Decoder<'m> {
    /// Decodes the kernel `function`; `globals` has the addresses of the module's variables.
    ///
    /// # Errors
    /// An instruction that isn't supported, a name that isn't declared.
    pub fn kernel(module: &'m ast::Module, function: &Function, globals: &HashMap<String, u64>) -> Result<Kernel> {
        let mut decoder = Decoder {
            module,
            scopes: Scopes::default(),
            rows: Rows::new(),
            code: Vec::new(),
            tables: Vec::new(),
            calls: Vec::new(),
            functions: HashMap::new(),
            open: Vec::new(),
            pending: Vec::new(),
            local: 0,
            shared: 0,
            dynamic_align: 1,
            line: function.line,
            labels: HashMap::new(),
            label_scopes: Vec::new(),
            label_blocks: 0,
            branch_tables: HashMap::new(),
            patches: Vec::new(),
            kernel: true,
        };
        decoder.scopes.open();
        for variable in &module.variables {
            let meaning = match variable.space {
                Space::Shared if variable.count == 0 => {
                    decoder.dynamic_align = decoder.dynamic_align.max(variable.align);
                    Meaning::Dynamic
                }
                Space::Shared => Meaning::Shared(variable.bytes(), variable.align),
                _ => match globals.get(&variable.name) {
                    Some(&address) => Meaning::Address(address),
                    None => continue,
                },
            };
            decoder.scopes.declare(&variable.name, meaning);
        }
        decoder.scopes.open();
        let (mut parameters, mut bytes) = (Vec::new(), 0usize);
        for parameter in &function.parameters {
            let offset = bytes.next_multiple_of(parameter.align);
            parameters.push(Parameter { offset, bytes: parameter.bytes() });
            decoder.scopes.declare(&parameter.name, Meaning::KernelParameter(offset as u32));
            bytes = offset + parameter.bytes();
        }
        decoder.open.push(function.name.clone());
        decoder.function_body(function)?;
        while let Some((call, name)) = decoder.pending.pop() {
            decoder.callee(call, &name)?;
        }
        let target = module.target.trim_start_matches("sm_").trim_end_matches(['a', 'f']);
        Ok(Kernel {
            name: function.name.clone(),
            code: decoder.code,
            tables: decoder.tables,
            calls: decoder.calls,
            parameters,
            parameter_bytes: bytes,
            register_bytes: decoder.rows.bytes.next_multiple_of(64),
            declared_registers: decoder.rows.declared,
            fills: decoder.rows.fills,
            local_bytes: decoder.local.next_multiple_of(16),
            shared_bytes: decoder.shared,
            dynamic_align: decoder.dynamic_align,
            required_threads: function.required_threads,
            max_threads: function.max_threads.unwrap_or(1024),
            ptx_version: module.version.0 * 10 + module.version.1,
            target: target.parse().unwrap_or(0),
        })
    }

    /// An error at the instruction in hand.
    pub fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(DecodeError::new(self.line, what))
    }

    /// The error for an instruction that this GPU doesn't know.
    pub fn unsupported<T>(&self, ins: &Instruction) -> Result<T> {
        self.fail(format!("the instruction `{}` is not supported", ins.name()))
    }

    /// Checks that an instruction has no modifiers but types and these.
    ///
    /// # Errors
    /// It has others: it is a variant that nobody here knows.
    pub fn only(&self, ins: &Instruction, known: &[&str]) -> Result<()> {
        let strange = |word: &&String| Type::parse(word).is_none() && !known.contains(&word.as_str());
        if ins.modifiers.iter().find(strange).is_some() { self.unsupported(ins) } else { Ok(()) }
    }

    fn declare(&mut self, variable: &Variable) -> Result<()> {
        self.line = variable.line;
        match variable.space {
            Space::Reg => {
                if variable.ty == Type::B128 {
                    return self.fail("128-bit registers are not supported");
                }
                let names = match variable.range {
                    Some(count) => (0..count).map(|i| format!("{}{i}", variable.name)).collect(),
                    None => vec![variable.name.clone()],
                };
                for name in names {
                    let slot = self.rows.register(variable.ty);
                    self.scopes.declare(&name, Meaning::Register(slot, variable.ty));
                }
            }
            Space::Local => {
                let at = self.allocate_local(variable);
                self.scopes.declare(&variable.name, Meaning::Address(at.into()));
            }
            Space::Param => {
                let at = self.allocate_local(variable);
                self.scopes.declare(&variable.name, Meaning::Parameter(at, variable.bytes() as u32));
            }
            Space::Shared if variable.count == 0 => {
                self.dynamic_align = self.dynamic_align.max(variable.align);
                self.scopes.declare(&variable.name, Meaning::Dynamic);
            }
            Space::Shared => {
                self.scopes.declare(&variable.name, Meaning::Shared(variable.bytes(), variable.align));
            }
            Space::Global | Space::Const | Space::Generic => {
                return self.fail(format!("a {:?} variable inside a function", variable.space));
            }
        }
        Ok(())
    }

    pub(super) fn allocate_local(&mut self, variable: &Variable) -> u32 {
        let at = self.local.next_multiple_of(variable.align);
        self.local = at + variable.bytes();
        at as u32
    }

    pub(super) fn function_body(&mut self, function: &Function) -> Result<()> {
        self.kernel = function.kernel;
        self.labels.clear();
        self.branch_tables.clear();
        self.patches.clear();
        let start = self.code.len();
        let Some(body) = &function.body else {
            return self.fail(format!("`{}` has no body", function.name));
        };
        self.statements(body)?;
        // The end of the function, where every `ret` goes.
        let act = if function.kernel { Act::Exit } else { Act::Return };
        let mut end = Inst::new(Class::Control, act, &[]);
        end.line = self.line;
        self.code.push(end);
        self.link(start)
    }

    fn statements(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            match statement {
                Statement::Label(name) => {
                    self.labels.insert(self.label(name), self.code.len());
                }
                Statement::Targets(name, targets) => {
                    let targets = targets.iter().map(|target| self.label(target)).collect();
                    self.branch_tables.insert(name.clone(), targets);
                }
                Statement::Variable(variable) => self.declare(variable)?,
                Statement::Block(inner) => {
                    let labels = inner.iter().filter_map(|statement| match statement {
                        Statement::Label(name) => Some(name.clone()),
                        _ => None,
                    });
                    self.label_blocks += 1;
                    self.label_scopes.push((self.label_blocks, labels.collect()));
                    self.scopes.open();
                    self.statements(inner)?;
                    self.scopes.close();
                    self.label_scopes.pop();
                }
                Statement::Instruction(ins) => self.instruction(ins)?,
            }
        }
        Ok(())
    }

    /// A label's name in its function: blocks in braces have labels of their own.
    fn label(&self, name: &str) -> String {
        let scope = self.label_scopes.iter().rev().find(|(_, names)| names.iter().any(|other| other == name));
        scope.map_or_else(|| name.to_owned(), |(number, _)| format!("{name} of block {number}"))
    }

    fn instruction(&mut self, ins: &Instruction) -> Result<()> {
        self.line = ins.line;
        let at = self.code.len();
        let mut inst = match ins.opcode.as_str() {
            "bra" => {
                let Operand::Name(label) = self.operand(ins, 0)?.clone() else {
                    return self.fail("a branch to something that isn't a label");
                };
                self.patches.push((at, Patch::Branch(self.label(&label))));
                Inst::new(Class::Control, Act::Branch { target: 0, join: NEVER }, &[])
            }
            "brx" => self.indirect_branch(ins, at)?,
            "call" => self.call(ins)?,
            "ret" if !self.kernel => {
                self.patches.push((at, Patch::Branch(String::new())));
                Inst::new(Class::Control, Act::Branch { target: 0, join: NEVER }, &[])
            }
            "ret" | "exit" => Inst::new(Class::Control, Act::Exit, &[]),
            _ => exec::decode(self, ins)?,
        };
        inst.line = ins.line;
        if let Some((name, negated)) = &ins.guard {
            inst.guard = NonZero::new(self.predicate_named(name)?);
            inst.negated = *negated;
        }
        self.code.push(inst);
        Ok(())
    }

    fn indirect_branch(&mut self, ins: &Instruction, at: usize) -> Result<Inst> {
        let index = self.src(self.operand(ins, 0)?, Type::U32)?;
        let Operand::Name(list) = self.operand(ins, 1)? else {
            return self.unsupported(ins);
        };
        let Some(targets) = self.branch_tables.get(list).cloned() else {
            return self.fail(format!("the branch table {list} is not declared"));
        };
        let table = self.tables.len() as u32;
        self.tables.push(Vec::new());
        self.patches.push((at, Patch::Switch(table, targets)));
        Ok(Inst::new(Class::Control, Act::Switch { table, join: NEVER }, &[index]))
    }

    /// Fills in branch targets and joins of the function that began at `start`.
    fn link(&mut self, start: usize) -> Result<()> {
        let end = self.code.len() - 1;
        let find = |label: &str| -> Result<usize> {
            if label.is_empty() {
                return Ok(end);
            }
            self.labels.get(label).copied().ok_or_else(|| DecodeError::new(self.line, format!("no label {label}")))
        };
        for (at, patch) in &self.patches {
            match patch {
                Patch::Branch(label) => {
                    let target = find(label)?;
                    // A branch to a kernel's end is the end.
                    let leaves = matches!(self.code[target].act, Act::Exit) && self.code[target].guard.is_none();
                    self.code[*at].act =
                        if leaves { Act::Exit } else { Act::Branch { target: target as u32, join: NEVER } };
                }
                Patch::Switch(table, labels) => {
                    let targets: Result<Vec<u32>> = labels.iter().map(|label| find(label).map(|t| t as u32)).collect();
                    self.tables[*table as usize] = targets?;
                }
            }
        }
        let next: Vec<Next> = self.code[start..]
            .iter()
            .map(|inst| match inst.act {
                Act::Branch { target, .. } if inst.guard.is_none() => Next::Jump(vec![target as usize - start]),
                Act::Branch { target, .. } => Next::Fork(vec![target as usize - start]),
                Act::Switch { table, .. } => {
                    let targets = self.tables[table as usize].iter().map(|&t| t as usize - start).collect();
                    if inst.guard.is_none() { Next::Jump(targets) } else { Next::Fork(targets) }
                }
                Act::Exit | Act::Return if inst.guard.is_none() => Next::Leave,
                _ => Next::Fall,
            })
            .collect();
        for (i, found) in flow::joins(&next).into_iter().enumerate() {
            if let (Act::Branch { join, .. } | Act::Switch { join, .. }, Some(found)) =
                (&mut self.code[start + i].act, found)
            {
                *join = (start + found) as u32;
            }
        }
        Ok(())
    }
}
