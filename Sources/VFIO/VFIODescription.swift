internal import HostSystem
public import PCI

/// What the kernel says that a device has, checked.
struct VFIODescription {
    let canReset: Bool
    /// The six BARs, without the parts that must not be mapped.
    let bars: [VFIORegion]
    let configuration: VFIORegion

    init(_ file: FileDescriptor, _ kernel: any VFIOKernel) throws(PCIError) {
        let answer = AnswerBytes(
            bytes: try presenting { () throws(SystemError) in try kernel.deviceAnswer(file) }
        )
        guard let flags = answer.field32(VFIOLayout.deviceFlags),
            let count = answer.field32(VFIOLayout.deviceRegionCount),
            flags & VFIOLayout.deviceIsPCI != 0,
            count > VFIOLayout.configurationRegion
        else { throw VFIOCapabilityChain.refusal("the device is no PCI function") }
        canReset = flags & VFIOLayout.deviceCanReset != 0
        configuration = try Self.region(VFIOLayout.configurationRegion, file, kernel)
        guard configuration.size >= UInt64(EmulatedConfigSpace.length) else {
            throw VFIOCapabilityChain.refusal(
                "configuration space has \(configuration.size) bytes"
            )
        }
        var bars: [VFIORegion] = []
        for bar in 0..<ConfigurationHeader.baseAddressCount {
            bars.append(try Self.region(bar, file, kernel))
        }
        // Kernels before 4.16 keep the page of the MSI-X table to themselves, and mapping it fails.
        if let table = try Self.messageTable(file, kernel, configuration),
            bars.indices.contains(table.bar), !bars[table.bar].coversMessageTable
        {
            bars[table.bar] = bars[table.bar].without(table.bytes)
        }
        self.bars = bars
    }

    private static func region(
        _ index: Int,
        _ file: FileDescriptor,
        _ kernel: any VFIOKernel
    ) throws(PCIError) -> VFIORegion {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try kernel.regionAnswer(file, index, capacity: 4096)
        } catch {
            guard error.errno == .invalidArgument else { throw .system(error) }
            return .absent
        }
        return try VFIORegion(AnswerBytes(bytes: bytes), index: index)
    }

    private struct MessageTable {
        let bar: Int
        let bytes: Range<UInt64>
    }

    // Read straight from the region: the function is not there yet to walk its own list.
    private static func messageTable(
        _ file: FileDescriptor,
        _ kernel: any VFIOKernel,
        _ region: VFIORegion
    ) throws(PCIError) -> MessageTable? {
        let space = AnswerBytes(
            bytes: try presenting { () throws(SystemError) in
                try kernel.read(file, at: region.offset, count: EmulatedConfigSpace.length)
            }
        )
        guard let status = space.field16(ConfigurationHeader.status), status & (1 << 4) != 0,
            let first = space.field16(ConfigurationHeader.capabilities)
        else { return nil }
        var at = Int(first & 0xfc)
        for _ in 0..<CapabilityList.longest where at >= ConfigurationHeader.length {
            guard let head = space.field16(at) else { return nil }
            if UInt8(truncatingIfNeeded: head) == MSIXTable.identifier,
                let control = space.field16(at + MSIXTable.controlOffset),
                let table = space.field32(at + 4)
            {
                let start = UInt64(table & ~7)
                let length = (UInt64(control & 0x7ff) + 1) * UInt64(MSIXTable.entryLength)
                return MessageTable(bar: Int(table & 7), bytes: start..<start + length)
            }
            at = Int(head >> 8) & 0xfc
        }
        return nil
    }
}

/// A function that is reset together with another when their bus or slot is.
public struct HotResetMember: Hashable, Sendable {
    /// Where it is.
    public let address: PCIAddress
    /// Its IOMMU group, or its id behind iommufd.
    public let group: UInt32

    static func list(_ answer: AnswerBytes) throws(PCIError) -> [HotResetMember] {
        guard let claimed = answer.field32(VFIOLayout.hotResetCount),
            Int(claimed) <= (answer.bytes.count - VFIOLayout.hotResetLength)
                / VFIOLayout.hotResetEntry
        else { throw VFIOCapabilityChain.refusal("a list of functions is longer than the answer") }
        var members: [HotResetMember] = []
        for index in 0..<Int(claimed) {
            let at = VFIOLayout.hotResetLength + VFIOLayout.hotResetEntry * index
            guard let group = answer.field32(at), let segment = answer.field16(at + 4),
                let place = answer.field16(at + 6)
            else { throw VFIOCapabilityChain.refusal("a list of functions is cut off") }
            members.append(
                HotResetMember(
                    address: PCIAddress(
                        domain: UInt32(segment),
                        bus: UInt8(truncatingIfNeeded: place),
                        device: UInt8(truncatingIfNeeded: place >> 11),
                        function: UInt8(truncatingIfNeeded: place >> 8 & 7)
                    ),
                    group: group
                )
            )
        }
        return members
    }
}
