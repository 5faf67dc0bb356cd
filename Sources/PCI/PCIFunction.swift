public import GuestMemory
public import HostSystem
public import Virtqueue

/// A PCI function as its driver sees it. The driver cannot tell an emulated function in this process
/// from one behind a socket or in hardware.
///
/// Control path: none of this is called per packet. What a packet path needs, a window's address and
/// a doorbell, is given out as a value.
public protocol PCIFunction: AnyObject {
    /// Reads configuration space; bytes beyond its end read as ones.
    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32

    /// Writes configuration space.
    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError)

    /// Length of a BAR in bytes, 0 when it is absent.
    func barSize(_ bar: Int) throws(PCIError) -> UInt64

    /// Reads a register.
    func readRegister(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) throws(PCIError) -> UInt32

    /// Writes a register.
    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError)

    /// Maps part of a BAR that is memory rather than registers.
    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow

    /// A value that stores `value` to a register from any thread.
    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell

    /// Delivers MSI-X vector `vector` to an eventfd, or masks it when `nil`.
    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError)

    /// Number of MSI-X vectors.
    var interruptVectorCount: Int { get throws(PCIError) }

    /// Lets the function reach an arena at the arena's device address.
    func mapDMA(_ arena: DMAArena) throws(PCIError)

    /// Takes an arena away; no access to it is under way once this returns.
    func unmapDMA(_ arena: DMAArena) throws(PCIError)

    /// Makes an arena that the function can reach, of `size` bytes or a little more, at an address of
    /// the function's choice. `noRoom` when there is no address or no memory for it.
    func makeArena(size: Int) throws(PCIError) -> DMAArena

    /// Takes back what `makeArena` made; no access to it is under way once this returns.
    func releaseArena(_ arena: DMAArena) throws(PCIError)

    /// Resets the function.
    func reset() throws(PCIError)
}

/// A mapped part of a BAR, and what keeps it mapped.
@safe
public struct BARWindow {
    // Safety: `owner` keeps `size` bytes at `address` mapped.
    /// Where the first byte is mapped.
    @unsafe public let address: UnsafeMutableRawPointer
    /// Length in bytes.
    public let size: UInt64
    /// Keep this for as long as the address is used.
    public let owner: any AnyObject & Sendable

    /// Describes a mapped window.
    @unsafe
    public init(address: UnsafeMutableRawPointer, size: UInt64, owner: any AnyObject & Sendable) {
        unsafe self.address = unsafe address
        self.size = size
        self.owner = owner
    }
}
