//! What a kernel uses, read from its cubin.
//!
//! A cubin is a little-endian ELF64 file. `.nv.info` (all kernels) and `.nv.info.<kernel>`
//! hold attributes of the form: format byte, attribute byte, `u16`; format 4 means that
//! the `u16` is the length of a payload that follows. Every offset is checked, so a
//! damaged file gives an error.

/// Register, memory and parameter use of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Registers per thread.
    pub registers: u32,
    /// Local memory per thread in bytes: spills and arrays indexed at run time.
    pub local_bytes: u32,
    /// Static shared memory in bytes, with the 1 KiB that `sm_90` and later reserve.
    pub static_smem_bytes: u32,
    /// Threads per block promised by `__launch_bounds__`.
    pub max_threads: Option<u32>,
    /// Kernel parameters in order.
    pub params: Vec<ParamSlot>,
}

/// Place of one parameter in the parameter block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamSlot {
    pub offset: u32,
    pub size: u32,
}

/// Format byte of attributes with a payload.
const PAYLOAD: u8 = 4;
const MAX_THREADS: u8 = 0x05;
const FRAME_SIZE: u8 = 0x11;
const PARAM_INFO: u8 = 0x17;
const REGISTER_COUNT: u8 = 0x2f;

const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;

/// Reads what kernel `name` uses.
///
/// # Errors
/// Says what is wrong with the file, or that it has no such kernel.
pub fn read(cubin: &[u8], name: &str) -> Result<Resources, String> {
    let elf = Elf::parse(cubin)?;
    elf.section(&format!(".text.{name}"))
        .ok_or_else(|| format!("no kernel `{name}` in it"))?;
    let mut resources = Resources::default();
    if let Some(shared) = elf.section(&format!(".nv.shared.{name}")) {
        resources.static_smem_bytes = u32::try_from(shared.size).map_err(|_| "shared memory over 4 GiB")?;
    }
    if let Some(info) = elf.section(".nv.info") {
        let symbol = elf.symbol_index(name)?;
        for (attribute, payload) in attributes(elf.content(info)?)? {
            read_shared_attribute(&mut resources, attribute, payload, symbol)?;
        }
    }
    let mut params = Vec::new();
    if let Some(info) = elf.section(&format!(".nv.info.{name}")) {
        for (attribute, payload) in attributes(elf.content(info)?)? {
            match attribute {
                MAX_THREADS => resources.max_threads = Some(volume(payload)?),
                PARAM_INFO => params.push(param(payload)?),
                _ => {}
            }
        }
    }
    params.sort_by_key(|(ordinal, _)| *ordinal);
    resources.params = params.into_iter().map(|(_, slot)| slot).collect();
    Ok(resources)
}

/// Takes an attribute of `.nv.info`, which are (symbol index, value) pairs.
fn read_shared_attribute(
    resources: &mut Resources,
    attribute: u8,
    payload: &[u8],
    symbol: u32,
) -> Result<(), &'static str> {
    if !matches!(attribute, REGISTER_COUNT | FRAME_SIZE) || u32_at(payload, 0)? != symbol {
        return Ok(());
    }
    let value = u32_at(payload, 4)?;
    if attribute == REGISTER_COUNT {
        resources.registers = value;
    } else {
        resources.local_bytes = value;
    }
    Ok(())
}

fn volume(payload: &[u8]) -> Result<u32, &'static str> {
    let mut product = 1u32;
    for place in [0, 4, 8] {
        product = product.saturating_mul(u32_at(payload, place)?);
    }
    Ok(product)
}

/// Ordinal and slot: `u32` index, `u16` ordinal, `u16` offset, `u32` with the size above
/// bit 18.
fn param(payload: &[u8]) -> Result<(u16, ParamSlot), &'static str> {
    let slot = ParamSlot {
        offset: u32::from(u16_at(payload, 6)?),
        size: u32_at(payload, 8)? >> 18,
    };
    Ok((u16_at(payload, 4)?, slot))
}

/// The attributes with a payload, in file order.
fn attributes(mut bytes: &[u8]) -> Result<Vec<(u8, &[u8])>, &'static str> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let (format, attribute) = (bytes[0], bytes[1]);
        let value = usize::from(u16_at(bytes, 2)?);
        bytes = &bytes[4..];
        if format == PAYLOAD {
            let (payload, rest) = bytes
                .split_at_checked(value)
                .ok_or("attribute leaves its section")?;
            found.push((attribute, payload));
            bytes = rest;
        }
    }
    Ok(found)
}

/// Sections of an ELF64 file.
struct Elf<'a> {
    bytes: &'a [u8],
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    name: &'a str,
    offset: usize,
    size: usize,
    /// Section type; `NOBITS` sections such as shared memory have no bytes in the file.
    kind: u32,
}

const NOBITS: u32 = 8;

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        if bytes.get(..5) != Some(b"\x7fELF\x02") {
            return Err("not an ELF64 file");
        }
        let table = usize_at(bytes, 0x28)?;
        let n_sections = usize::from(u16_at(bytes, 0x3c)?);
        let names_index = usize::from(u16_at(bytes, 0x3e)?);
        let header = |index: usize| {
            let start = index.checked_mul(SECTION_HEADER_BYTES)?.checked_add(table)?;
            bytes.get(start..start.checked_add(SECTION_HEADER_BYTES)?)
        };
        let names = header(names_index).ok_or("section names are missing")?;
        let names = usize_at(names, 0x18)?;
        let sections = (0..n_sections)
            .map(|index| {
                let header = header(index).ok_or("section table leaves the file")?;
                Ok(Section {
                    name: c_str(
                        bytes,
                        names.checked_add(u32_at(header, 0)? as usize).ok_or("bad name")?,
                    )?,
                    kind: u32_at(header, 4)?,
                    offset: usize_at(header, 0x18)?,
                    size: usize_at(header, 0x20)?,
                })
            })
            .collect::<Result<_, &'static str>>()?;
        Ok(Elf { bytes, sections })
    }

    fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    fn content(&self, section: &Section<'a>) -> Result<&'a [u8], &'static str> {
        if section.kind == NOBITS {
            return Ok(&[]);
        }
        let end = section.offset.checked_add(section.size);
        end.and_then(|end| self.bytes.get(section.offset..end))
            .ok_or("section leaves the file")
    }

    fn symbol_index(&self, name: &str) -> Result<u32, &'static str> {
        let symbols = self.content(self.section(".symtab").ok_or("no symbols")?)?;
        let strings = self.content(self.section(".strtab").ok_or("no symbol names")?)?;
        for (index, symbol) in (0..).zip(symbols.chunks_exact(SYMBOL_BYTES)) {
            if c_str(strings, u32_at(symbol, 0)? as usize)? == name {
                return Ok(index);
            }
        }
        Err("the kernel has no symbol")
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, &'static str> {
    field(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, &'static str> {
    field(bytes, offset).map(u32::from_le_bytes)
}

fn usize_at(bytes: &[u8], offset: usize) -> Result<usize, &'static str> {
    let value = field(bytes, offset).map(u64::from_le_bytes)?;
    usize::try_from(value).map_err(|_| "offset over the address space")
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], &'static str> {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or("file ends within a field")
}

fn c_str(bytes: &[u8], offset: usize) -> Result<&str, &'static str> {
    let rest = bytes.get(offset..).ok_or("name leaves the file")?;
    let len = rest
        .iter()
        .position(|&byte| byte == 0)
        .ok_or("name without an end")?;
    std::str::from_utf8(&rest[..len]).map_err(|_| "name is not text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_an_error() {
        assert!(read(b"", "k").is_err());
        assert!(read(b"\x7fELF\x02 and nothing else", "k").is_err());
        assert!(read(&[0xff; 4096], "k").is_err());
    }
}
