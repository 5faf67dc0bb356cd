internal import PCI
internal import VirtioSpec

/// The virtio capabilities as they stand in configuration space, good or bad: the checks judge them.
struct FoundStructures {
    /// One capability.
    struct Found {
        /// Offset in configuration space.
        let offset: Int
        /// `cap_len`.
        let statedLength: Int
        /// The capability; `nil` when it is shorter than its type demands.
        let capability: VirtioCapability?
        /// `cfg_type`.
        let type: VirtioCapabilityType
    }

    /// In list order.
    let all: [Found]
    /// Why the list could not be walked.
    let failure: PCIError?

    /// Walks the list.
    init(_ function: any PCIFunction) {
        var found: [Found] = []
        do throws(PCIError) {
            for entry in try CapabilityList(function).entries
            where entry.identifier == VirtioCapability.identifier {
                found.append(try Self.read(entry.offset, function))
            }
            failure = nil
        } catch {
            failure = error
        }
        all = found
    }

    /// The first of a type that is whole.
    func first(_ type: VirtioCapabilityType) -> VirtioCapability? {
        all.lazy.compactMap(\.capability).first { $0.type == type }
    }

    /// All that are whole and point into a BAR.
    var placed: [VirtioCapability] {
        all.compactMap(\.capability).filter { $0.type != .configurationAccess && $0.length > 0 }
    }

    private static func read(
        _ offset: Int,
        _ function: any PCIFunction
    ) throws(PCIError) -> Found {
        var bytes: [UInt8] = []
        for at in offset..<min(offset + 24, 256) {
            bytes.append(UInt8(truncatingIfNeeded: try function.readConfiguration(at, .byte)))
        }
        return Found(
            offset: offset,
            statedLength: bytes.count > 2 ? Int(bytes[2]) : 0,
            capability: VirtioCapability(bytes: bytes),
            type: VirtioCapabilityType(rawValue: bytes.count > 3 ? bytes[3] : 0)
        )
    }
}

extension VirtioCapability {
    /// For evidence: type, BAR, range.
    var place: String {
        let end = offset &+ length
        return "type \(type.rawValue) at BAR \(bar) 0x\(String(offset, radix: 16))"
            + "-0x\(String(end, radix: 16))"
    }
}
