public import GuestMemory
public import HostSystem

/// A PCI function from the inside: what an emulated function answers when its configuration space
/// and BARs are accessed. The mirror of `PCIFunction`; whoever serves it (in process, over a socket)
/// brings a `PCIHost`.
public protocol PCIEndpoint: AnyObject {
    /// Size of BAR `bar` in bytes, 0 when absent.
    func barSize(_ bar: Int) -> UInt64

    /// Reads configuration space; what is not there reads as ones (HI-H1).
    func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32

    /// Writes configuration space; read-only bits keep their value (HI-H3).
    func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32)

    /// Reads a register; each byte behaves as its register does (HI-H2).
    func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32

    /// Writes a register.
    func writeRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32)

    /// The memory behind a BAR that is a window, `nil` for a BAR of registers.
    func window(_ bar: Int) -> Mapping?

    /// The file behind a BAR that a client in another process may map, `nil` when every access has
    /// to come here.
    func windowFile(_ bar: Int) -> WindowFile?

    /// An eventfd that does what a store to that register would do, where there is one. Its number stays,
    /// the file behind it may change: use the number, make no copy. Servers give clients an ioeventfd
    /// for such a register.
    func doorbellDescriptor(_ bar: Int, _ offset: UInt64) -> Int32?

    /// Who serves the function from now on.
    func attach(_ host: any PCIHost)

    /// Function-level reset: configuration and device as after power-on.
    func reset()

    /// The memory behind `PCIHost.memory` changed: when this returns nobody uses the old one, unless
    /// `isFormerMemoryInUse` says otherwise.
    func memoryChanged()

    /// True while a thread that was told to let go of memory has not: it may still write what a client
    /// took away (HI-E13).
    var isFormerMemoryInUse: Bool { get }

    /// The driver's machine went without a word. Its memory is gone next: when this returns nothing
    /// that its driver set up is used any more, whatever memory is there afterwards.
    func clientGone()
}

extension PCIEndpoint {
    /// No file: every access comes here.
    public func windowFile(_ bar: Int) -> WindowFile? { nil }

    /// Never: for functions without threads.
    public var isFormerMemoryInUse: Bool { false }

    /// Nothing.
    public func clientGone() {}
}

/// What an emulated function may ask of whoever serves it.
public protocol PCIHost: AnyObject {
    /// Delivers an MSI-X vector that is enabled and unmasked.
    func raise(_ vector: Int)

    /// What the function can reach by DMA right now, at IOVAs.
    var memory: MemoryTable { get }
}
