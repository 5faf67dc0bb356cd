import Testing
import VirtioSpec

@Suite struct AdminRecordsTests {
    @Test func `AVQ-D-302: an error record is code, qualifier, detail in 8 bytes`() {
        let record = AdminErrorRecord(.attribute(at: 0x0102_0304))
        #expect(record.bytes == [22, 0, 0x03, 0x01, 4, 3, 2, 1])
        #expect(AdminErrorRecord(zeroExtending: record.bytes) == record)
    }

    @Test func `each qualifier goes with its errno value`() {
        let codes: [(AdminQualifier, UInt16)] = [
            (.noSuchDevice, 6), (.noRoomForDevice, 28), (.badDeviceType, 22), (.badAttribute, 22),
            (.badFeatures, 22), (.staticDevice, 22), (.badState, 16), (.badQueue, 22),
            (.badAddress, 22), (.rangeOverlap, 17), (.noMapping, 6), (.badVector, 22),
            (.shortBuffer, 22), (.badOffset, 22), (.invalidOpcode, 22), (.invalidField, 22),
            (.noResource, 28), (.tryAgain, 11),
        ]
        for (qualifier, code) in codes { #expect(qualifier.code == code) }
    }

    @Test(arguments: [4, 8, 0x10e, 0xffff] as [UInt16])
    func `HI-F90: a reserved qualifier counts as INVALID_COMMAND and is shown as a number`(
        _ qualifier: UInt16
    ) {
        var writer = WireWriter()
        writer.integer(UInt16(99))
        writer.integer(qualifier)
        let record = AdminErrorRecord(zeroExtending: writer.bytes)
        #expect(record.meaning == .invalidCommand)
        #expect(record.description.contains("0x\(String(qualifier, radix: 16))"))
        #expect(record.description.contains("code 99"))
    }

    @Test(arguments: 0..<8)
    func `HI-F91: record bytes that were not sent count as zero`(_ count: Int) {
        let whole = AdminErrorRecord(AdminError(.shortBuffer, detail: 0x0403_0201)).bytes
        let cut = AdminErrorRecord(zeroExtending: whole.prefix(count))
        let padded = AdminErrorRecord(
            zeroExtending: whole.prefix(count) + [UInt8](repeating: 0, count: 8 - count)
        )
        #expect(cut == padded)
    }

    @Test func `HI-F91: a list that claims more ids than it carries is cut to them`() {
        var bytes = DeviceList(ids: [5, 6], hasMore: true).bytes
        bytes[0] = 0xff
        bytes[3] = 0xff
        let list = DeviceList(bytes)
        #expect(list.ids == [5, 6])
        #expect(list.hasMore)
        #expect(DeviceList([]).ids.isEmpty)
    }

    @Test func `results have the sizes and places that the layout gives them`() {
        let information = DeviceInformation(
            type: DeviceType(1),
            flags: [.isStatic, .mmuFail],
            queueCount: 2,
            vectorCount: 3,
            maximumQueueSize: 4,
            configurationSize: 5
        )
        #expect(information.bytes.count == DeviceInformation.size)
        #expect([0, 4, 8, 10, 12, 16].map { information.bytes[$0] } == [1, 9, 2, 3, 4, 5])
        #expect(DeviceInformation(WireFields(information.bytes)) == information)

        let queue = QueueInformation(
            maximumSize: 1,
            size: 2,
            vector: 3,
            isEnabled: true,
            addresses: QueueAddresses(descriptorArea: 4, driverArea: 5, deviceArea: 6)
        )
        #expect(queue.bytes.count == QueueInformation.size)
        #expect([0, 8, 10, 12, 16, 24, 32].map { queue.bytes[$0] } == [1, 2, 3, 1, 4, 5, 6])
        #expect(QueueInformation(WireFields(queue.bytes)) == queue)

        let mmu = MMUInformation(pageSizeMask: 1, first: 2, last: 3, maximumMappings: 4)
        #expect(mmu.bytes.count == MMUInformation.size)
        #expect([0, 8, 16, 24].map { mmu.bytes[$0] } == [1, 2, 3, 4])

        let fault = FaultRecord(
            reason: .permission,
            flags: [.write, .addressValid],
            address: 3,
            queue: 4
        )
        #expect(fault.bytes.count == FaultRecord.size)
        #expect([0, 4, 5, 8, 16].map { fault.bytes[$0] } == [2, 2, 1, 3, 4])
        #expect(FaultRecord(WireFields(fault.bytes)) == fault)
    }

    @Test func `an event is id, type, index, lost count, data in 32 bytes`() {
        var event = AdminEvent(.mmuFault, virtualDeviceID: 1, index: 2, data: 4)
        event.lostCount = 3
        #expect(event.bytes.count == AdminEvent.size)
        #expect([0, 8, 10, 12, 16].map { event.bytes[$0] } == [1, 3, 2, 3, 4])
        #expect(AdminEvent(zeroExtending: event.bytes) == event)
    }

    @Test func `an event of a type nobody knows has none`() {
        var bytes = AdminEvent(.usedBuffer, virtualDeviceID: 1).bytes
        bytes[8] = 7
        #expect(AdminEvent(zeroExtending: bytes).type == nil)
        #expect(AdminEvent(zeroExtending: []).type == nil)
    }

    @Test func `capabilities have their bits, and unknown ones are shown by number`() {
        #expect(AdminCapabilities.events.rawValue == 1 << 38)
        #expect(AdminCapabilities.all.rawValue == 0x7f_0000_0002)
        #expect(AdminCapabilities(rawValue: 1 << 50 | 2).description == "VDEV|bit 50")
    }

    @Test func `the largest event mask covers types 1 to 6`() {
        #expect(AdminEventMask.all.rawValue == 0x7e)
    }
}
