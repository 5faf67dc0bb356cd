/// Memory that somebody else may take away while we use it: a file of another process.
///
/// Whoever touches such pages is not hurt, and learns nothing; this tells the control thread.
public protocol RevocableMemory: AnyObject, Sendable {
    /// An access found pages gone. Stays so: the pages are ours since, and nobody shares them.
    var isLost: Bool { get }

    /// Which memory it is, for people.
    var name: String { get }

    /// True for an address of it.
    func holds(_ address: UnsafeRawPointer) -> Bool
}

/// Memory that was taken away: what it was, and where its user saw it (HI-I11).
public struct MemoryLoss: Sendable, Equatable, CustomStringConvertible {
    /// The stable error id.
    public static let id = "mem/truncated"

    /// Which memory.
    public let name: String
    /// The first of its addresses in the table, where it is in one.
    public let first: UInt64?
    /// Bytes from there on.
    public let count: UInt64

    /// Describes a loss.
    public init(name: String, first: UInt64? = nil, count: UInt64 = 0) {
        self.name = name
        self.first = first
        self.count = count
    }

    /// One line for people.
    public var description: String {
        guard let first else { return "\(name) was cut short" }
        return "\(name) was cut short, \(count) bytes at 0x\(String(first, radix: 16))"
    }
}

extension MemoryTable {
    /// Memory of this table that was taken away; `nil` while all of it is there.
    public var loss: MemoryLoss? {
        for owner in owners {
            if let below = owner as? MemoryTable {
                if let loss = below.loss { return loss }
            } else if let memory = owner as? any RevocableMemory, memory.isLost {
                let region = all.first { unsafe memory.holds(UnsafeRawPointer($0.base)) }
                return MemoryLoss(
                    name: memory.name,
                    first: region?.start,
                    count: region?.size ?? 0
                )
            }
        }
        return nil
    }
}
