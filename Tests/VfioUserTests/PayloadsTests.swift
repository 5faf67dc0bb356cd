import Testing
import VfioUser

/// Bytes written as hexadecimal digits; blanks and separators do not count.
func hex(_ text: String) -> [UInt8] {
    let digits = text.filter(\.isHexDigit).compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map {
        UInt8(digits[$0] << 4 | digits[$0 + 1])
    }
}

/// A whole message.
func message(
    _ command: Command,
    id: UInt16,
    _ payload: [UInt8] = [],
    flags: MessageHeader.Flags = [],
    error: UInt32 = 0
) -> [UInt8] {
    MessageHeader(
        identifier: id,
        command: command.rawValue,
        messageSize: UInt32(MessageHeader.size + payload.count),
        flags: flags,
        error: error
    ).encoded + payload
}

@Suite struct PayloadsTests {
    @Test func `VFU-H-01: questions about the device are laid out as others lay them out`() throws {
        let request = hex(
            "0300 0400 20000000 00000000 00000000  10000000 00000000 00000000 00000000"
        )
        #expect(message(.deviceGetInfo, id: 3, DeviceInfo().encoded) == request)
        let reply = hex("0300 0400 20000000 01000000 00000000  10000000 03000000 09000000 05000000")
        let info = DeviceInfo(flags: [.pci, .reset], regionCount: 9, interruptCount: 5)
        #expect(message(.deviceGetInfo, id: 3, info.encoded, flags: .reply) == reply)
        #expect(DeviceInfo(Array(reply.dropFirst(16))) == info)
    }

    @Test func `VFU-S-23: a region with two areas has its capability at 32`() throws {
        let vector = hex(
            """
            0700 0500 60000000 01000000 00000000
            50000000 0f000000 02000000 20000000 0000800000000000 0000000000000000
            0100 0100 00000000 02000000 00000000
            0000000000000000 0000200000000000  0000400000000000 0000200000000000
            """
        )
        let areas = SparseAreas(areas: [0..<0x20_0000, 0x40_0000..<0x60_0000])
        let info = RegionInfo(
            argumentSize: UInt32(RegionInfo.size + areas.size),
            flags: [.read, .write, .mappable, .capabilities],
            index: 2,
            capabilityOffset: 32,
            length: 0x80_0000
        )
        let payload = info.encoded + areas.encoded
        #expect(message(.deviceGetRegionInfo, id: 7, payload, flags: .reply) == vector)
        let answer = Array(vector.dropFirst(16))
        #expect(RegionInfo(answer) == info)
        #expect(SparseAreas(answer, at: 32) == areas)
    }

    @Test func `VFU-H-03: interrupts are set, and refused, as others do it`() throws {
        let vector = hex(
            "3c00 0800 24000000 00000000 00000000  14000000 24000000 02000000 00000000 01000000"
        )
        let set = InterruptSet(flags: [.eventDescriptors, .trigger], index: .msix, count: 1)
        #expect(message(.deviceSetIRQs, id: 0x3c, set.encoded) == vector)
        #expect(InterruptSet(Array(vector.dropFirst(16))) == set)
        let refusal = hex("3c00 0800 10000000 21000000 16000000")
        #expect(
            message(.deviceSetIRQs, id: 0x3c, flags: [.reply, .error], error: 22) == refusal
        )
    }

    @Test func `VFU-S-10: memory is announced and taken back as QEMU does it`() throws {
        let map = hex(
            """
            0100 0200 30000000 00000000 00000000
            20000000 03000000 0000000000000000 0000000000000000 0000001000000000
            """
        )
        let range = DMAMap(flags: [.readable, .writable], address: 0, length: 0x1000_0000)
        #expect(message(.dmaMap, id: 1, range.encoded) == map)
        #expect(DMAMap(Array(map.dropFirst(16))) == range)
        let unmap = hex(
            "2900 0300 28000000 00000000 00000000  18000000 00000000 0000000000000000 0000001000000000"
        )
        let gone = DMAUnmap(address: 0, length: 0x1000_0000)
        #expect(message(.dmaUnmap, id: 0x29, gone.encoded) == unmap)
        #expect(DMAUnmap(Array(unmap.dropFirst(16))) == gone)
    }

    @Test func `VFU-S-45: region counts have 32 bits, memory counts 64`() throws {
        let region = hex("0d00 0900 20000000 00000000 00000000  0000000000000000 07000000 00010000")
        let read = RegionAccess(offset: 0, region: 7, count: 256)
        #expect(message(.regionRead, id: 13, read.encoded) == region)
        #expect(RegionAccess(Array(region.dropFirst(16))) == read)
        let memory = hex("0270 0b00 20000000 00000000 00000000  0000100000000000 1000000000000000")
        let access = DMAAccess(address: 0x10_0000, count: 16)
        #expect(message(.dmaRead, id: 0x7002, access.encoded) == memory)
        #expect(DMAAccess(Array(memory.dropFirst(16))) == access)
        #expect(message(.deviceReset, id: 32) == hex("2000 0d00 10000000 00000000 00000000"))
    }

    @Test func `VFU-H-08: no structure is read from a byte too few`() {
        func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
        #expect(DMAMap(zeros(31)) == nil && DMAMap(zeros(32)) != nil)
        #expect(DMAUnmap(zeros(23)) == nil && DMAUnmap(zeros(24)) != nil)
        #expect(DMAAccess(zeros(15)) == nil && DMAAccess(zeros(16)) != nil)
        #expect(DeviceInfo(zeros(15)) == nil && DeviceInfo(zeros(16)) != nil)
        #expect(RegionInfo(zeros(31)) == nil && RegionInfo(zeros(32)) != nil)
        #expect(InterruptInfo(zeros(15)) == nil && InterruptInfo(zeros(16)) != nil)
        #expect(InterruptSet(zeros(19)) == nil && InterruptSet(zeros(20)) != nil)
        #expect(RegionAccess(zeros(15)) == nil && RegionAccess(zeros(16)) != nil)
        #expect(RegionDescriptors(zeros(15)) == nil && RegionDescriptors(zeros(16)) != nil)
        #expect(RegionEvent(zeros(39)) == nil && RegionEvent(zeros(40)) != nil)
        #expect(DeviceFeature(zeros(7)) == nil && DeviceFeature(zeros(8)) != nil)
        #expect(MultiWrite(zeros(7)) == nil && MultiWrite(zeros(8)) == MultiWrite(entries: []))
    }

    @Test func `VFU-S-44: a bundle of writes has as many entries as it states`() {
        let entry = MultiWrite.Entry(
            access: RegionAccess(offset: 0x1000, region: 0, count: 2),
            data: [7, 0]
        )
        let bundle = MultiWrite(entries: [entry, entry])
        #expect(bundle.encoded.count == 8 + 2 * 24)
        #expect(MultiWrite(bundle.encoded) == bundle)
        #expect(MultiWrite(bundle.encoded + [0]) == nil)
        #expect(MultiWrite(Array(bundle.encoded.dropLast())) == nil)
        var lie = bundle.encoded
        lie[0] = 3
        #expect(MultiWrite(lie) == nil)
        lie[7] = 0xff
        #expect(MultiWrite(lie) == nil)
    }

    @Test func `HI-E42: areas that the answer does not hold, or that wrap, are not read`() {
        let good = SparseAreas(areas: [0..<4096]).encoded
        #expect(SparseAreas(good, at: 0) != nil)
        #expect(SparseAreas(good, at: 1) == nil)
        #expect(SparseAreas(good, at: 4000) == nil)
        #expect(SparseAreas(Array(good.dropLast()), at: 0) == nil)
        var many = good
        many[11] = 0xff
        #expect(SparseAreas(many, at: 0) == nil)
        var wraps = good
        for at in 16..<32 { wraps[at] = 0xff }
        #expect(SparseAreas(wraps, at: 0) == nil)
        var other = good
        other[0] = 2
        #expect(SparseAreas(other, at: 0) == nil)
    }

    @Test func `VFU-S-26: an io descriptor entry has 40 bytes`() {
        let event = RegionEvent(
            offset: 0x3004,
            length: 2,
            descriptorIndex: 1,
            flags: .dataMatch,
            dataMatch: 9
        )
        #expect(event.encoded.count == RegionEvent.size)
        #expect(RegionEvent(event.encoded) == event)
    }
}
