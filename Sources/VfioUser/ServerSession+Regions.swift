internal import CSystemShims
internal import HostSystem
internal import PCI

// Questions about the device, and accesses to its regions.
extension ServerSession {
    /// Number of interrupt indices.
    static let interruptIndices = UInt32(InterruptIndex.allCases.count)
    /// What offset and length of a mapping must be multiples of.
    private static let page: UInt64 = 4096
    /// The longest BAR that is searched for doorbells.
    private static let doorbellLimit: UInt64 = 1 << 16

    func deviceInfo(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let request = DeviceInfo(payload) else { throw short(.deviceGetInfo, payload) }
        try check(request.argumentSize, DeviceInfo.size)
        return Answer(
            payload: DeviceInfo(
                flags: [.reset, .pci],
                regionCount: UInt32(RegionIndex.count),
                interruptCount: Self.interruptIndices
            ).encoded
        )
    }

    func interruptInfo(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let request = InterruptInfo(payload) else { throw short(.deviceGetIRQInfo, payload) }
        try check(request.argumentSize, InterruptInfo.size)
        guard let index = InterruptIndex(rawValue: request.index) else {
            throw Refusal(.argument, "interrupt index \(request.index)")
        }
        let count = wiring.count(index)
        return Answer(
            payload: InterruptInfo(
                flags: count > 0 ? .eventDescriptor : [],
                index: request.index,
                count: UInt32(count)
            ).encoded
        )
    }

    func regionInfo(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let request = RegionInfo(payload) else { throw short(.deviceGetRegionInfo, payload) }
        try check(request.argumentSize, RegionInfo.size)
        let region = try region(request.index, .argument)
        let length = length(of: region)
        var info = RegionInfo(index: request.index, length: length)
        guard length > 0 else { return Answer(payload: info.encoded) }
        info.flags = [.read, .write]
        guard let mappable = mappable(region, length) else {
            return Answer(payload: info.encoded)
        }
        let capability = SparseAreas(areas: mappable.areas)
        info.argumentSize = UInt32(RegionInfo.size + capability.size)
        // Whoever has no room for the areas is told how much to bring, and nothing else.
        guard info.argumentSize <= request.argumentSize else {
            return Answer(payload: info.encoded)
        }
        info.flags.formUnion([.mappable, .capabilities])
        info.capabilityOffset = UInt32(RegionInfo.size)
        info.offset = mappable.window.offset
        return Answer(
            payload: info.encoded + capability.encoded,
            descriptors: [mappable.window.file]
        )
    }

    /// Doorbells of a region as eventfds, at most as many as the client takes.
    ///
    /// They are eventfds of ours: whoever a doorbell rings may hand over another eventfd of his at any
    /// moment, which a copy in the client's hands would not follow.
    func regionDescriptors(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let request = RegionDescriptors(payload) else {
            throw short(.deviceGetRegionIOFDs, payload)
        }
        try check(request.argumentSize, RegionDescriptors.size)
        guard request.flags == 0, request.count == 0 else {
            throw Refusal(.argument, "flags \(request.flags), count \(request.count)")
        }
        let region = try region(request.index, .argument)
        let events = doorbells(of: region)
        let size = RegionDescriptors.size + RegionEvent.size * events.count
        var head = RegionDescriptors(
            argumentSize: UInt32(size),
            index: request.index,
            count: UInt32(events.count)
        )
        guard UInt32(size) <= request.argumentSize else {
            head.count = 0
            return Answer(payload: head.encoded)
        }
        var answer = Answer(payload: head.encoded)
        for (position, event) in events.enumerated() {
            answer.payload +=
                RegionEvent(
                    offset: event.offset,
                    length: 2,
                    descriptorIndex: UInt32(position)
                ).encoded
            answer.descriptors.append(event.event.descriptor)
        }
        return answer
    }

    // MARK: - Accesses

    func readRegion(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let access = RegionAccess(payload) else { throw short(.regionRead, payload) }
        let count = try check(access)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(RegionAccess.size + count)
        bytes += payload[0..<RegionAccess.size]
        read(Int(access.region), access.offset, count, into: &bytes)
        return Answer(payload: bytes)
    }

    func writeRegion(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard let access = RegionAccess(payload) else { throw short(.regionWrite, payload) }
        let count = try check(access)
        let data = payload[RegionAccess.size...]
        guard data.count == count else {
            throw Refusal(.regionRange, "\(data.count) bytes for a write of \(count)")
        }
        write(Int(access.region), access.offset, data)
        return Answer(payload: Array(payload[0..<RegionAccess.size]))
    }

    /// Most bytes of a bundle: each write may cost what a command costs. QEMU sends 200 at the most.
    private static let longestBundle = MultiWrite.headerSize + 256 * MultiWrite.entrySize

    /// Writes as many entries as are good (VFU-S-44).
    func writeRegions(_ payload: [UInt8]) throws(Refusal) -> Answer {
        guard payload.count <= Self.longestBundle, let bundle = MultiWrite(payload) else {
            throw short(.regionWriteMulti, payload)
        }
        var done: UInt64 = 0
        for entry in bundle.entries {
            guard entry.access.count <= 8, let count = try? check(entry.access) else { break }
            write(Int(entry.access.region), entry.access.offset, entry.data[0..<count])
            done += 1
        }
        var answer = Answer()
        answer.payload.appendField(done)
        if done < UInt64(bundle.entries.count) {
            answer.refused = Refusal(
                .regionRange,
                "write \(done) of a bundle of \(bundle.entries.count)"
            )
        }
        return answer
    }

    /// The number of bytes of an access that is inside its region (VFU-S-40, HI-E15).
    private func check(_ access: RegionAccess) throws(Refusal) -> Int {
        let length = length(of: try region(access.region, .regionRange))
        guard access.count <= UInt32(Capabilities.defaultTransferSize), access.offset <= length,
            UInt64(access.count) <= length - access.offset
        else {
            throw Refusal(
                .regionRange,
                "\(access.count) bytes at \(DMATable.hex(access.offset)) of region"
                    + " \(access.region), which has \(length)"
            )
        }
        return Int(access.count)
    }

    private func read(_ region: Int, _ offset: UInt64, _ count: Int, into bytes: inout [UInt8]) {
        let endpoint = endpoint
        if region == RegionIndex.configuration {
            RegionRun.read(offset, count, into: &bytes) { at, width in
                endpoint.readConfiguration(Int(at), width)
            }
        } else {
            RegionRun.read(offset, count, into: &bytes) { at, width in
                endpoint.readRegister(region, at, width)
            }
        }
    }

    private func write(_ region: Int, _ offset: UInt64, _ bytes: ArraySlice<UInt8>) {
        let endpoint = endpoint
        if region == RegionIndex.configuration {
            RegionRun.write(offset, bytes) { at, width, value in
                endpoint.writeConfiguration(Int(at), width, value)
            }
        } else {
            RegionRun.write(offset, bytes) { at, width, value in
                endpoint.writeRegister(region, at, width, value)
            }
        }
    }

    // MARK: - Regions

    private func check(_ argumentSize: UInt32, _ size: Int) throws(Refusal) {
        guard argumentSize >= UInt32(size) else {
            throw Refusal(.argument, "argsz \(argumentSize), \(size) are needed")
        }
    }

    private func region(_ index: UInt32, _ id: FaultID) throws(Refusal) -> Int {
        guard index < UInt32(RegionIndex.count) else { throw Refusal(id, "region \(index)") }
        return Int(index)
    }

    private func length(of region: Int) -> UInt64 {
        switch region {
        case RegionIndex.bars: endpoint.barSize(region)
        case RegionIndex.configuration: UInt64(EmulatedConfigSpace.length)
        default: 0
        }
    }

    /// What of a region a client can map.
    private struct Mappable {
        let window: WindowFile
        let areas: [Range<UInt64>]
    }

    /// The areas that a client can map: whole pages, inside the region and the file (VFU-S-24).
    private func mappable(_ region: Int, _ length: UInt64) -> Mappable? {
        guard RegionIndex.bars.contains(region), (negotiation?.messageDescriptors ?? 0) > 0,
            let window = endpoint.windowFile(region), window.offset % Self.page == 0,
            let status = try? window.file.status(),
            status.size > window.offset
        else { return nil }
        let end = min(length, status.size - window.offset)
        var areas: [Range<UInt64>] = []
        for area in window.areas where area.lowerBound < end {
            let first = (area.lowerBound + Self.page - 1) / Self.page * Self.page
            let last = min(area.upperBound, end) / Self.page * Self.page
            if first < last { areas.append(first..<last) }
        }
        return areas.isEmpty ? nil : Mappable(window: window, areas: areas)
    }

    /// The doorbells of a BAR, as many as fit into one message to the client.
    private func doorbells(of region: Int) -> [GivenDoorbell] {
        guard RegionIndex.bars.contains(region), endpoint.window(region) == nil,
            case let size = endpoint.barSize(region), size <= Self.doorbellLimit
        else { return [] }
        let most = min(negotiation?.messageDescriptors ?? 0, Int(SHIM_MAX_DESCRIPTORS))
        var found: [GivenDoorbell] = []
        for slot in 0..<(size / 4) where found.count < most {
            guard endpoint.doorbellDescriptor(region, 4 * slot) != nil,
                let doorbell = doorbell(region, 4 * slot)
            else { continue }
            found.append(doorbell)
        }
        return found
    }
}
