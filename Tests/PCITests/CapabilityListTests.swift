import GuestMemory
import HostSystem
import PCI
import Testing

@Suite struct CapabilityListTests {
    /// A function of 256 configuration bytes that anybody may have written.
    private final class Bytes {
        var bytes = [UInt8](repeating: 0, count: 256)

        init() {
            bytes[0] = 0xf4
            bytes[1] = 0x1a
            bytes[6] = 0x10
            bytes[0x34] = 0x40
        }

        func list() throws -> CapabilityList {
            try CapabilityList(BytesFunction(bytes))
        }
    }

    @Test func `HI-H5: a list that loops ends after 48 steps`() {
        for next in [UInt8(0x40), 0x41, 0x43] {
            let function = Bytes()
            function.bytes[0x41] = next
            #expect { try function.list() } throws: { error in
                guard case PCIError.capabilityLoop = error else { return false }
                return true
            }
        }
    }

    @Test func `HI-H5: a loop over many capabilities ends`() {
        let function = Bytes()
        for at in stride(from: 0x40, to: 256, by: 4) {
            function.bytes[at + 1] = at == 0xfc ? 0x40 : UInt8(at + 4)
        }
        #expect(throws: PCIError.self) { try function.list() }
        function.bytes[0xfd] = 0
        #expect(throws: Never.self) { try function.list() }
    }

    @Test func `HI-H5: a pointer into the header is refused`() {
        for pointer in [UInt8(0x04), 0x10, 0x34, 0x3c] {
            let function = Bytes()
            function.bytes[0x34] = pointer
            #expect(throws: PCIError.self) { try function.list() }
            function.bytes[0x34] = 0x40
            function.bytes[0x41] = pointer
            #expect(throws: PCIError.self) { try function.list() }
        }
    }

    @Test func `HI-H5: an unaligned pointer loses its reserved bits`() throws {
        let function = Bytes()
        function.bytes[0x34] = 0x47
        function.bytes[0x44] = 0x11
        let entries = try function.list().entries
        #expect(entries.map(\.offset) == [0x44])
        #expect(entries.map(\.identifier) == [0x11])
    }

    @Test func `HI-H5: the last capability may touch the end`() throws {
        let function = Bytes()
        function.bytes[0x34] = 0xff
        function.bytes[0xfc] = 0x09
        #expect(try function.list().first(0x09)?.offset == 0xfc)
    }

    @Test func `without the status bit there is no list`() throws {
        let function = Bytes()
        function.bytes[6] = 0
        #expect(try function.list().entries.isEmpty)
    }

    @Test func `HI-A53: all ones are no function`() {
        let function = Bytes()
        function.bytes = [UInt8](repeating: 0xff, count: 256)
        #expect { try function.list() } throws: { error in
            guard case PCIError.deviceGone = error else { return false }
            return true
        }
    }

    @Test func `HI-H5: no configuration space of random bytes traps or hangs the walk`() {
        var random = SystemRandomNumberGenerator()
        let function = Bytes()
        for _ in 0..<2000 {
            function.bytes = (0..<256).map { _ in UInt8.random(in: 0...255, using: &random) }
            function.bytes[6] |= 0x10
            guard let list = try? function.list() else { continue }
            #expect(list.entries.count <= CapabilityList.longest)
            #expect(list.entries.allSatisfy { (0x40...0xfc).contains($0.offset) })
        }
    }
}
