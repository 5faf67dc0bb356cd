import Testing
import VirtioSpec
import Virtqueue

@testable import AdminQueue

@Suite struct QueueTableTests {
    private let addresses = QueueAddresses(
        descriptorArea: 0x1000,
        driverArea: 0x2000,
        deviceArea: 0x3000
    )

    private func enabled() throws -> QueueTable {
        var table = QueueTable(limits: [256, 64])
        try table.setAddresses(0, addresses)
        try table.enable(0, value: 1)
        return table
    }

    @Test func `a queue starts with its largest size, off, without addresses`() throws {
        let table = QueueTable(limits: [256, 64])
        let information = try table.information(1, vector: noVector)
        #expect(information.maximumSize == 64)
        #expect(information.size == 64)
        #expect(!information.isEnabled)
        #expect(table.configuration(1, features: []) == nil)
    }

    @Test func `an enabled queue has a configuration with what was set`() throws {
        var table = QueueTable(limits: [256])
        try table.setSize(0, 128)
        try table.setAddresses(0, addresses)
        try table.setIndices(0, QueueIndices(lastAvailable: 7, lastUsed: 7))
        try table.enable(0, value: 1)
        let configuration = try #require(table.configuration(0, features: .indirect))
        #expect(configuration.size == 128)
        #expect(configuration.descriptorArea == 0x1000)
        #expect(configuration.driverArea == 0x2000)
        #expect(configuration.deviceArea == 0x3000)
        #expect(configuration.nextAvailable == 7)
        #expect(configuration.features == .indirect)
    }

    @Test(arguments: [2, 3, 0xffff] as [UInt16])
    func `AVQ-D-317, HI-F68: every command refuses a queue that is not there`(
        _ queue: UInt16
    ) throws {
        var table = try enabled()
        let before = table
        let error = AdminError(.badQueue)
        #expect(throws: error) { try table.information(queue, vector: 0) }
        #expect(throws: error) { try table.setSize(queue, 64) }
        #expect(throws: error) { try table.setAddresses(queue, addresses) }
        #expect(throws: error) { try table.enable(queue, value: 1) }
        #expect(throws: error) { try table.reset(queue) }
        #expect(throws: error) { try table.rememberKick(queue) }
        #expect(throws: error) { try table.indices(queue) }
        #expect(throws: error) {
            try table.setIndices(queue, QueueIndices(lastAvailable: 0, lastUsed: 0))
        }
        #expect(table == before)
    }

    @Test(arguments: [0, 3, 128, 0xffff] as [UInt16])
    func `AVQ-D-317: size 0, no power of two, or above the maximum is refused`(
        _ size: UInt16
    ) throws {
        var table = QueueTable(limits: [256, 64])
        let before = table
        #expect(throws: AdminError(.invalidField)) { try table.setSize(1, size) }
        #expect(table == before)
    }

    @Test func `AVQ-D-317: size, addresses and indices of an enabled queue stay`() throws {
        var table = try enabled()
        let before = table
        let error = AdminError(.badState)
        #expect(throws: error) { try table.setSize(0, 64) }
        #expect(throws: error) { try table.setAddresses(0, addresses) }
        #expect(throws: error) {
            try table.setIndices(0, QueueIndices(lastAvailable: 0, lastUsed: 0))
        }
        #expect(throws: error) { try table.indices(0) }
        #expect(table == before)
    }

    @Test(arguments: [0, 2, 0xffff] as [UInt16])
    func `AVQ-D-317: enabling takes the value 1`(_ value: UInt16) throws {
        var table = QueueTable(limits: [256])
        try table.setAddresses(0, addresses)
        let before = table
        #expect(throws: AdminError(.invalidField)) { try table.enable(0, value: value) }
        #expect(table == before)
    }

    @Test(arguments: 0..<3)
    func `AVQ-D-317: enabling takes three addresses`(_ missing: Int) throws {
        var table = QueueTable(limits: [256])
        try table.setAddresses(
            0,
            QueueAddresses(
                descriptorArea: missing == 0 ? 0 : 0x1000,
                driverArea: missing == 1 ? 0 : 0x2000,
                deviceArea: missing == 2 ? 0 : 0x3000
            )
        )
        #expect(throws: AdminError(.invalidField)) { try table.enable(0, value: 1) }
        #expect(!table.isEnabled(0))
    }

    @Test func `AVQ-D-317: a queue that the device does not offer now cannot be enabled`() throws {
        var table = QueueTable(limits: [0])
        try table.setAddresses(0, addresses)
        #expect(throws: AdminError(.invalidField)) { try table.enable(0, value: 1) }
    }

    @Test(
        arguments: [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002)]
            as [(UInt64, UInt64, UInt64)]
    )
    func `HI-F68: an unaligned area is refused`(
        _ descriptor: UInt64,
        _ driver: UInt64,
        _ device: UInt64
    ) throws {
        var table = QueueTable(limits: [256])
        let before = table
        #expect(throws: AdminError(.badAddress)) {
            try table.setAddresses(
                0,
                QueueAddresses(
                    descriptorArea: descriptor,
                    driverArea: driver,
                    deviceArea: device
                )
            )
        }
        #expect(table == before)
    }

    @Test func `indices that say buffers are in flight are refused`() throws {
        var table = QueueTable(limits: [256])
        #expect(throws: AdminError(.invalidField)) {
            try table.setIndices(0, QueueIndices(lastAvailable: 2, lastUsed: 1))
        }
    }

    @Test func `AVQ-D-318: a reset queue has its defaults and can be set up again`() throws {
        var table = try enabled()
        try table.reset(0)
        #expect(table == QueueTable(limits: [256, 64]))
        try table.setAddresses(0, addresses)
        try table.enable(0, value: 1)
        #expect(table.isEnabled(0))
    }

    @Test func `AVQ-D-319: an early kick is remembered and told once`() throws {
        var table = QueueTable(limits: [256, 64])
        try table.rememberKick(1)
        try table.rememberKick(1)
        #expect(table.takeKicks() == [1])
        #expect(table.takeKicks().isEmpty)
    }
}
