public import GuestMemory
public import PCI

/// A machine whose memory can be said to be cut, without a file that is.
public final class CutHost: PCIHost {
    private final class Lost: RevocableMemory {
        let isLost = true
        let name = "a file"
        private let first: UInt

        init(_ first: UInt) { self.first = first }

        func holds(_ address: UnsafeRawPointer) -> Bool { UInt(bitPattern: address) == first }
    }

    private let machine: any PCIHost
    private var table: MemoryTable?

    /// Stands before a machine.
    public init(_ machine: any PCIHost) { self.machine = machine }

    /// The machine's, until it is cut.
    public var memory: MemoryTable { table ?? machine.memory }

    /// Its vectors.
    public func raise(_ vector: Int) { machine.raise(vector) }

    /// From now on the first region is of a file that was cut.
    public func cut() throws {
        let regions = machine.memory.all
        let first = regions.first.map { UInt(bitPattern: unsafe $0.base) } ?? 0
        table = try MemoryTable(regions, owners: [machine.memory, Lost(first)])
    }

    /// As it was.
    public func mend() { table = nil }
}
