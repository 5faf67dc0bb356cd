import Glibc

/// What `/proc` says of this process.
enum Census {
    /// Open descriptors.
    static var descriptors: Int {
        guard let handle = unsafe opendir("/proc/self/fd") else { return -1 }
        defer { unsafe closedir(handle) }
        var count = 0
        while unsafe readdir(handle) != nil { count += 1 }
        return count
    }

    /// Mappings.
    static var mappings: Int {
        guard let file = unsafe fopen("/proc/self/maps", "r") else { return -1 }
        defer { unsafe fclose(file) }
        var count = 0
        while case let byte = unsafe getc(file), byte != EOF {
            if byte == 10 { count += 1 }
        }
        return count
    }
}
