import Testing
import VirtioSpec

@testable import AdminQueue

@Suite struct InterruptTableTests {
    private func mask(_ table: inout InterruptTable, _ vector: UInt16) throws {
        #expect(try table.set(VectorRecord(vector: vector, flags: .masked)).isEmpty)
    }

    @Test func `a bound source raises its vector, an unbound one nothing`() throws {
        var table = InterruptTable(vectorCount: 2, queueCount: 2)
        #expect(try table.bind(.queue(1), to: 1) == 1)
        #expect(table.raise(.queue(1)) == .init(source: .queue(1), vector: 1))
        #expect(table.raise(.queue(0)) == nil)
        #expect(table.raise(.configuration) == nil)
    }

    @Test(arguments: [2, 3, 0xfffe, 0xffff] as [UInt16])
    func `AVQ-D-315: binding to a vector that is not there reads back no vector`(
        _ vector: UInt16
    ) throws {
        var table = InterruptTable(vectorCount: 2, queueCount: 2)
        _ = try table.bind(.queue(0), to: 1)
        #expect(try table.bind(.queue(0), to: vector) == noVector)
        #expect(table.vector(of: .queue(0)) == noVector)
        #expect(try table.bind(.configuration, to: vector) == noVector)
        #expect(table.raise(.queue(0)) == nil)
    }

    @Test func `HI-F68: binding a queue that is not there is refused`() {
        var table = InterruptTable(vectorCount: 2, queueCount: 2)
        let before = table
        #expect(throws: AdminError(.badQueue)) { try table.bind(.queue(2), to: 0) }
        #expect(table == before)
    }

    @Test func `AVQ-D-316: a masked vector holds interrupts, unmasking delivers each source once`()
        throws
    {
        var table = InterruptTable(vectorCount: 1, queueCount: 2)
        for source in [InterruptTable.Source.queue(0), .queue(1), .configuration] {
            _ = try table.bind(source, to: 0)
        }
        try mask(&table, 0)
        #expect(table.raise(.queue(1)) == nil)
        #expect(table.raise(.configuration) == nil)
        #expect(table.raise(.queue(1)) == nil)
        #expect(try table.record(0).flags == [.masked, .pending])
        let deliveries = try table.set(VectorRecord(vector: 0, flags: []))
        #expect(deliveries.map(\.source) == [.queue(1), .configuration])
        #expect(try table.record(0).flags == [])
        #expect(try table.set(VectorRecord(vector: 0, flags: [])).isEmpty)
    }

    @Test func `AVQ-D-316: masking one vector leaves the others alone`() throws {
        var table = InterruptTable(vectorCount: 2, queueCount: 2)
        _ = try table.bind(.queue(0), to: 0)
        _ = try table.bind(.queue(1), to: 1)
        try mask(&table, 0)
        #expect(table.raise(.queue(0)) == nil)
        #expect(table.raise(.queue(1))?.vector == 1)
    }

    @Test func `a vector's message is kept, and its pending bit cannot be written`() throws {
        var table = InterruptTable(vectorCount: 1, queueCount: 0)
        let record = VectorRecord(
            vector: 0,
            flags: [.masked, .pending],
            messageData: 5,
            messageAddress: 0xfee0_0000
        )
        #expect(try table.set(record).isEmpty)
        let read = try table.record(0)
        #expect(read.flags == .masked)
        #expect(read.messageData == 5)
        #expect(read.messageAddress == 0xfee0_0000)
    }

    @Test(arguments: [1, 0xffff] as [UInt16])
    func `a vector that is not there is BAD_VECTOR`(_ vector: UInt16) {
        var table = InterruptTable(vectorCount: 1, queueCount: 0)
        let before = table
        #expect(throws: AdminError(.badVector)) { try table.record(vector) }
        #expect(throws: AdminError(.badVector)) {
            try table.set(VectorRecord(vector: vector, flags: []))
        }
        #expect(table == before)
    }

    @Test func `a reset forgets bindings, masks and what is pending`() throws {
        var table = InterruptTable(vectorCount: 1, queueCount: 1)
        _ = try table.bind(.queue(0), to: 0)
        try mask(&table, 0)
        _ = table.raise(.queue(0))
        table.reset()
        #expect(table == InterruptTable(vectorCount: 1, queueCount: 1))
    }

    @Test func `AVQ-D-318: unbinding a queue takes its pending interrupt with it`() throws {
        var table = InterruptTable(vectorCount: 1, queueCount: 2)
        _ = try table.bind(.queue(0), to: 0)
        _ = try table.bind(.queue(1), to: 0)
        try mask(&table, 0)
        _ = table.raise(.queue(0))
        _ = table.raise(.queue(1))
        table.unbind(.queue(0))
        let deliveries = try table.set(VectorRecord(vector: 0, flags: []))
        #expect(deliveries.map(\.source) == [.queue(1)])
    }
}
