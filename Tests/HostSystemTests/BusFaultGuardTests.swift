import CSystemShims
import HostSystem
import Testing

@Suite struct BusFaultGuardTests {
    private func foreignFile(_ size: UInt64) throws -> FileDescriptor {
        let raw = try checked(unsafe shim_memfd_create("foreign", 0), "create")
        let file = FileDescriptor(owning: raw)
        try checked(shim_set_file_size(raw, size), "size")
        return file
    }

    @Test func `HI-I11: a fault turns the guarded part into zeros and leaves the rest`() throws {
        let file = try foreignFile(16384)
        let mapping = try Mapping.file(file, offset: 0, length: 16384)
        unsafe mapping.address.storeBytes(of: 7, toByteOffset: 0, as: UInt8.self)
        let busFaults = try BusFaultGuard(mapping, at: 8192, length: 8192)
        #expect(!busFaults.hasFaulted)
        try checked(shim_set_file_size(file.rawValue, 4096), "truncate")
        #expect(unsafe mapping.address.load(fromByteOffset: 12288, as: UInt8.self) == 0)
        #expect(busFaults.hasFaulted)
        unsafe mapping.address.storeBytes(of: 1, toByteOffset: 8192, as: UInt8.self)
        #expect(unsafe mapping.address.load(as: UInt8.self) == 7)
    }

    @Test(arguments: [(-1, 4096), (0, 0), (4096, 4097), (8193, 1)])
    func `a part outside the mapping is not guarded`(position: Int, length: Int) throws {
        let mapping = try Mapping.anonymous(length: 8192)
        #expect(throws: SystemError.self) {
            _ = try BusFaultGuard(mapping, at: position, length: length)
        }
        #expect(throws: SystemError.self) { try mapping.populate(at: position, length: length) }
    }

    @Test func `HI-I14: pages that the file does not have cannot be populated`() throws {
        let file = try foreignFile(4096)
        let mapping = try Mapping.file(file, offset: 0, length: 8192)
        try mapping.populate(at: 0, length: 4096)
        #expect(throws: SystemError.self) { try mapping.populate(at: 0, length: 8192) }
    }
}
