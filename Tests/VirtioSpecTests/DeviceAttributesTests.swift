import Testing
import VirtioSpec

@Suite struct DeviceAttributesTests {
    @Test func `all attributes survive encoding and decoding`() throws {
        var wanted = DeviceAttributes()
        wanted.features = [.version1, .netMAC]
        wanted.configuration = [1, 2, 3, 4, 5]
        wanted.queueCount = 4
        wanted.maximumQueueSize = 256
        wanted.vectorCount = 5
        wanted.uuid = [UInt8](0..<16)
        let read = try DeviceAttributes(wanted.bytes)
        #expect(read.features == wanted.features)
        #expect(read.configuration == wanted.configuration)
        #expect(read.queueCount == 4)
        #expect(read.maximumQueueSize == 256)
        #expect(read.vectorCount == 5)
        #expect(read.uuid == wanted.uuid)
    }

    @Test func `values are padded to four bytes and offsets tell where each stands`() throws {
        var wanted = DeviceAttributes()
        wanted.configuration = [0xaa]
        wanted.queueCount = 0x0201
        #expect(wanted.bytes == [2, 0, 1, 0, 0xaa, 0, 0, 0, 3, 0, 2, 0, 1, 2, 0, 0])
        let read = try DeviceAttributes(wanted.bytes)
        #expect(read.offset(of: .configuration) == 0)
        #expect(read.offset(of: .queueCount) == 8)
    }

    @Test func `no bytes ask for nothing`() throws {
        let read = try DeviceAttributes([])
        #expect(read == DeviceAttributes())
        #expect(read.features == nil)
        #expect(read.bytes.isEmpty)
    }

    @Test func `AVQ-D-304: padding missing at the very end is no fault`() throws {
        #expect(try DeviceAttributes([3, 0, 2, 0, 7, 0]).queueCount == 7)
    }

    @Test(
        arguments: [
            ([0, 0, 0, 0], 0),  // type 0
            ([7, 0, 0, 0], 0),  // unknown type
            ([3], 0),  // cut in the header
            ([3, 0, 2], 0),
            ([3, 0, 2, 0, 1], 0),  // cut in the value
            ([3, 0, 1, 0, 1, 0, 0, 0], 0),  // too short for its type
            ([3, 0, 4, 0, 1, 0, 0, 0], 0),  // too long for its type
            ([1, 0, 0xff, 0xff, 1], 0),  // length far beyond the bytes
            ([6, 0, 15, 0] + [UInt8](repeating: 1, count: 16), 0),
            ([3, 0, 2, 0, 7, 0, 0, 0, 3, 0, 2, 0, 8, 0, 0, 0], 8),  // twice
            ([3, 0, 2, 0, 7, 0, 0, 0, 9, 0, 0, 0], 8),  // good, then unknown
        ] as [([UInt8], UInt32)]
    )
    func `HI-F63, AVQ-D-307: malformed attributes are refused with their offset`(
        _ bytes: [UInt8],
        _ offset: UInt32
    ) {
        #expect(throws: AdminError.attribute(at: offset)) { try DeviceAttributes(bytes) }
    }
}
